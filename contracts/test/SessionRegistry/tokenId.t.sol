// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ISessionRegistry} from "../../src/interfaces/ISessionRegistry.sol";
import {Vm} from "../Vm.sol";
import {SessionTest} from "./SessionTest.sol";

contract TokenIdTest is SessionTest {
    function testFuzz_HashOfTheCoordinates(bytes32 x, bytes32 y) public view {
        vm.assertEq(
            registry.tokenId(abi.encodePacked(bytes1(0x04), x, y)),
            uint256(keccak256(abi.encodePacked(x, y)))
        );
    }

    function testFuzz_LowBitsAreTheAddress(uint256 privateKey) public {
        Vm.Wallet memory wallet = vm.createWallet(bound(privateKey, 1, ORDER - 1));
        vm.assertEq(
            address(
                uint160(
                    registry.tokenId(
                        abi.encodePacked(bytes1(0x04), wallet.publicKeyX, wallet.publicKeyY)
                    )
                )
            ),
            wallet.addr
        );
    }

    function expectInvalid(bytes memory key) private {
        vm.expectRevert(abi.encodeWithSelector(ISessionRegistry.PublicKeyInvalid.selector, key));
        registry.tokenId(key);
    }

    function test_RevertIf_Empty() public {
        expectInvalid("");
    }

    function test_RevertIf_OneByteShort() public {
        expectInvalid(abi.encodePacked(bytes1(0x04), new bytes(63)));
    }

    function test_RevertIf_OneByteLong() public {
        expectInvalid(abi.encodePacked(publicKey, bytes1(0)));
    }

    function test_RevertIf_Compressed() public {
        expectInvalid(abi.encodePacked(bytes1(0x02), new bytes(32)));
    }

    function testFuzz_RevertIf_AnotherPrefix(bytes1 prefix) public {
        vm.assume(prefix != 0x04);
        bytes memory key = publicKey;
        key[0] = prefix;
        expectInvalid(key);
    }
}
