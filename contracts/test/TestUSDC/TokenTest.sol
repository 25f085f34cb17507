// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {TestUSDC} from "../../src/TestUSDC.sol";
import {BaseTest} from "../BaseTest.sol";

/// @notice A token of which `owner` has some, and an authorization to pay `stranger`.
abstract contract TokenTest is BaseTest {
    struct Authorization {
        address from;
        address to;
        uint256 value;
        uint256 validAfter;
        uint256 validBefore;
        bytes32 nonce;
    }

    uint256 internal constant BALANCE = 1000e6;

    bytes internal constant USED = "TestUSDC: authorization is used or canceled";
    bytes internal constant EXPIRED = "TestUSDC: authorization is expired";
    bytes internal constant NOT_YET_VALID = "TestUSDC: authorization is not yet valid";
    bytes internal constant INVALID_SIGNATURE = "TestUSDC: invalid signature";

    TestUSDC internal token;

    function setUp() public virtual override {
        super.setUp();
        token = new TestUSDC();
        token.mint(owner, BALANCE);
    }

    function typicalAuthorization() internal view returns (Authorization memory) {
        return Authorization(owner, stranger, 5e6, NOW - 1, NOW + 60, keccak256("nonce"));
    }

    function digest(string memory primaryType, Authorization memory authorization)
        internal
        view
        returns (bytes32)
    {
        bytes32 typeHash = keccak256(
            bytes.concat(
                bytes(primaryType),
                "(address from,address to,uint256 value,uint256 validAfter,",
                "uint256 validBefore,bytes32 nonce)"
            )
        );
        return typed(keccak256(abi.encode(typeHash, authorization)));
    }

    function cancelDigest(address authorizer, bytes32 nonce) internal view returns (bytes32) {
        bytes32 typeHash = keccak256("CancelAuthorization(address authorizer,bytes32 nonce)");
        return typed(keccak256(abi.encode(typeHash, authorizer, nonce)));
    }

    function cancel(address authorizer, bytes32 nonce, uint256 privateKey) internal {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(privateKey, cancelDigest(authorizer, nonce));
        token.cancelAuthorization(authorizer, nonce, v, r, s);
    }

    function typed(bytes32 structHash) private view returns (bytes32) {
        bytes32 separator = keccak256(
            abi.encode(
                keccak256(
                    "EIP712Domain(string name,string version,"
                    "uint256 chainId,address verifyingContract)"
                ),
                keccak256("Test USD Coin"),
                keccak256("2"),
                block.chainid,
                address(token)
            )
        );
        return keccak256(abi.encodePacked(hex"1901", separator, structHash));
    }
}
