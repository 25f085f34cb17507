// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC3009} from "@openzeppelin/contracts/interfaces/draft-IERC3009.sol";
import {TokenTest} from "./TokenTest.sol";

contract ReceiveWithAuthorizationTest is TokenTest {
    string private constant TYPE = "ReceiveWithAuthorization";

    function receiveAs(address caller, Authorization memory a, string memory signedType) private {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(OWNER_KEY, digest(signedType, a));
        vm.prank(caller);
        token.receiveWithAuthorization(
            a.from, a.to, a.value, a.validAfter, a.validBefore, a.nonce, v, r, s
        );
    }

    function testFuzz_MovesTokensToTheCaller(uint256 value) public {
        Authorization memory authorization = typicalAuthorization();
        authorization.value = bound(value, 0, BALANCE);
        receiveAs(stranger, authorization, TYPE);
        vm.assertEq(token.balanceOf(stranger), authorization.value);
        vm.assertTrue(token.authorizationState(owner, authorization.nonce));
    }

    function test_EmitsAuthorizationUsed() public {
        Authorization memory authorization = typicalAuthorization();
        vm.expectEmit(address(token));
        emit IERC3009.AuthorizationUsed(owner, authorization.nonce);
        receiveAs(stranger, authorization, TYPE);
    }

    function testFuzz_RevertIf_CallerIsNotThePayee(address caller) public {
        vm.assume(caller != stranger);
        vm.expectRevert("TestUSDC: caller must be the payee");
        receiveAs(caller, typicalAuthorization(), TYPE);
    }

    function test_RevertIf_SignedToTransfer() public {
        vm.expectRevert(INVALID_SIGNATURE);
        receiveAs(stranger, typicalAuthorization(), "TransferWithAuthorization");
    }

    function test_RevertIf_Used() public {
        receiveAs(stranger, typicalAuthorization(), TYPE);
        vm.expectRevert(USED);
        receiveAs(stranger, typicalAuthorization(), TYPE);
    }

    function test_RevertIf_Expired() public {
        Authorization memory authorization = typicalAuthorization();
        vm.warp(authorization.validBefore);
        vm.expectRevert(EXPIRED);
        receiveAs(stranger, authorization, TYPE);
    }

    function test_RevertIf_NotYetValid() public {
        Authorization memory authorization = typicalAuthorization();
        vm.warp(authorization.validAfter);
        vm.expectRevert(NOT_YET_VALID);
        receiveAs(stranger, authorization, TYPE);
    }
}
