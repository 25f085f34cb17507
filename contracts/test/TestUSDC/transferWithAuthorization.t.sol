// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC3009} from "@openzeppelin/contracts/interfaces/draft-IERC3009.sol";
import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {TestUSDC} from "../../src/TestUSDC.sol";
import {TokenTest} from "./TokenTest.sol";

/// @notice Every test runs over both overloads.
abstract contract TransferWithAuthorizationTest is TokenTest {
    string internal constant TYPE = "TransferWithAuthorization";

    /// @dev Sends what was signed, through one overload.
    function send(Authorization memory authorization, bytes memory signature) internal virtual;

    function consentTo(Authorization memory authorization) internal view returns (bytes memory) {
        return signed(OWNER_KEY, digest(TYPE, authorization));
    }

    function expectRefusal(
        Authorization memory authorization,
        bytes memory signature,
        bytes memory reason
    ) internal {
        vm.expectRevert(reason);
        this.sendExternally(authorization, signature);
        vm.assertEq(token.balanceOf(owner), BALANCE);
    }

    function sendExternally(Authorization memory authorization, bytes memory signature) external {
        send(authorization, signature);
    }

    function testFuzz_MovesTokens_ForAnyCaller(
        address to,
        uint256 value,
        bytes32 nonce,
        address caller
    ) public {
        vm.assume(to != address(0) && to != owner && caller != address(vm));
        Authorization memory authorization = typicalAuthorization();
        (authorization.to, authorization.nonce) = (to, nonce);
        authorization.value = bound(value, 0, BALANCE);
        bytes memory signature = consentTo(authorization);
        vm.prank(caller);
        send(authorization, signature);
        vm.assertEq(token.balanceOf(to), authorization.value);
        vm.assertEq(token.balanceOf(owner), BALANCE - authorization.value);
        vm.assertTrue(token.authorizationState(owner, nonce));
    }

    function test_EmitsAuthorizationUsed() public {
        Authorization memory authorization = typicalAuthorization();
        bytes memory signature = consentTo(authorization);
        vm.expectEmit(address(token));
        emit IERC3009.AuthorizationUsed(owner, authorization.nonce);
        send(authorization, signature);
    }

    function test_EmitsTransfer() public {
        Authorization memory authorization = typicalAuthorization();
        bytes memory signature = consentTo(authorization);
        vm.expectEmit(address(token));
        emit IERC20.Transfer(owner, stranger, authorization.value);
        send(authorization, signature);
    }

    // Time: validAfter < now < validBefore

    function test_BothBoundsExclusive() public {
        Authorization memory authorization = typicalAuthorization();
        bytes memory signature = consentTo(authorization);
        vm.warp(authorization.validAfter);
        expectRefusal(authorization, signature, NOT_YET_VALID);
        vm.warp(authorization.validBefore);
        expectRefusal(authorization, signature, EXPIRED);
        vm.warp(authorization.validBefore - 1);
        send(authorization, signature);
    }

    function test_FromTheSecondAfterValidAfter() public {
        Authorization memory authorization = typicalAuthorization();
        bytes memory signature = consentTo(authorization);
        vm.warp(authorization.validAfter + 1);
        send(authorization, signature);
        vm.assertTrue(token.authorizationState(owner, authorization.nonce));
    }

    // Replay

    function test_RevertIf_Used() public {
        Authorization memory authorization = typicalAuthorization();
        send(authorization, consentTo(authorization));
        authorization.value = 1;
        bytes memory again = consentTo(authorization);
        vm.expectRevert(USED);
        this.sendExternally(authorization, again);
    }

    function test_RevertIf_Canceled() public {
        Authorization memory authorization = typicalAuthorization();
        cancel(owner, authorization.nonce, OWNER_KEY);
        expectRefusal(authorization, consentTo(authorization), USED);
    }

    function test_RevertIf_SignedForAnotherChain() public {
        Authorization memory authorization = typicalAuthorization();
        bytes memory signature = consentTo(authorization);
        vm.chainId(1);
        expectRefusal(authorization, signature, INVALID_SIGNATURE);
    }

    function test_RevertIf_SignedForAnotherToken() public {
        Authorization memory authorization = typicalAuthorization();
        bytes memory signature = consentTo(authorization);
        token = new TestUSDC();
        token.mint(owner, BALANCE);
        expectRefusal(authorization, signature, INVALID_SIGNATURE);
    }

    function test_RevertIf_SignedToReceive() public {
        Authorization memory authorization = typicalAuthorization();
        bytes memory signature =
            signed(OWNER_KEY, digest("ReceiveWithAuthorization", authorization));
        expectRefusal(authorization, signature, INVALID_SIGNATURE);
    }

    // Signature

    function test_RevertIf_SignedByPayee() public {
        Authorization memory authorization = typicalAuthorization();
        bytes memory signature = signed(STRANGER_KEY, digest(TYPE, authorization));
        expectRefusal(authorization, signature, INVALID_SIGNATURE);
    }

    function testFuzz_RevertIf_AnotherValueWasSigned(uint256 value) public {
        Authorization memory authorization = typicalAuthorization();
        bytes memory signature = consentTo(authorization);
        vm.assume(value != authorization.value);
        authorization.value = value;
        expectRefusal(authorization, signature, INVALID_SIGNATURE);
    }

    function test_RevertIf_HighS() public {
        Authorization memory authorization = typicalAuthorization();
        bytes memory signature = signedHigh(OWNER_KEY, digest(TYPE, authorization));
        expectRefusal(authorization, signature, INVALID_SIGNATURE);
    }

    function test_RevertIf_FromNobody() public {
        Authorization memory authorization = typicalAuthorization();
        authorization.from = address(0);
        expectRefusal(authorization, new bytes(65), INVALID_SIGNATURE);
    }

    function test_RevertIf_BalanceIsLess_AndTheNonceStaysUnused() public {
        Authorization memory authorization = typicalAuthorization();
        authorization.value = BALANCE + 1;
        expectRefusal(
            authorization,
            consentTo(authorization),
            abi.encodeWithSelector(
                IERC20Errors.ERC20InsufficientBalance.selector, owner, BALANCE, BALANCE + 1
            )
        );
        vm.assertFalse(token.authorizationState(owner, authorization.nonce));
    }
}

contract TransferWithAuthorizationBytesTest is TransferWithAuthorizationTest {
    function send(Authorization memory a, bytes memory signature) internal override {
        token.transferWithAuthorization(
            a.from, a.to, a.value, a.validAfter, a.validBefore, a.nonce, signature
        );
    }

    function testFuzz_RevertIf_SignatureTruncatedOrExtended(uint256 length) public {
        length = bound(length, 0, 130);
        vm.assume(length != 65);
        Authorization memory authorization = typicalAuthorization();
        bytes memory whole = consentTo(authorization);
        bytes memory part = new bytes(length);
        for (uint256 i = 0; i < length && i < 65; ++i) {
            part[i] = whole[i];
        }
        expectRefusal(authorization, part, INVALID_SIGNATURE);
    }
}

contract TransferWithAuthorizationVrsTest is TransferWithAuthorizationTest {
    function send(Authorization memory a, bytes memory signature) internal override {
        (bytes32 r, bytes32 s, bytes32 last) =
            abi.decode(bytes.concat(signature, new bytes(31)), (bytes32, bytes32, bytes32));
        token.transferWithAuthorization(
            a.from, a.to, a.value, a.validAfter, a.validBefore, a.nonce, uint8(last[0]), r, s
        );
    }
}
