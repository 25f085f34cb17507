// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {
    Consent,
    Grant,
    ISessionRegistry,
    Workspace
} from "../../src/interfaces/ISessionRegistry.sol";
import {SessionTest} from "./SessionTest.sol";

contract CloseWorkspaceTest is SessionTest {
    function close(bytes32 name) private {
        vm.prank(operator);
        registry.closeWorkspace(name);
    }

    function test_EmitsWorkspaceClosed() public {
        registerTypical();
        vm.expectEmit(address(registry));
        emit ISessionRegistry.WorkspaceClosed(ACME, 1, operator);
        close(ACME);
        vm.assertEq(abi.encode(registry.workspace(ACME)), abi.encode(Workspace(1, true)));
    }

    function test_EndsEverySessionOfTheWorkspace_AndNoOther() public {
        uint256[] memory ids = new uint256[](4);
        for (uint256 i = 0; i < 4; ++i) {
            useKey(i + 1);
            Grant memory grant = typicalGrant();
            if (i == 3) grant.workspace = keccak256("another");
            if (i == 2) grant.validFrom = uint64(NOW + 20 days);
            register(grant);
            ids[i] = id;
        }
        vm.warp(NOW + 10 days);
        close(ACME);
        for (uint256 i = 0; i < 3; ++i) {
            vm.assertFalse(registry.isActive(ids[i], NOW + 10 days));
            vm.assertFalse(registry.isActive(ids[i], NOW + 20 days));
            vm.assertEq(registry.isActive(ids[i], NOW + 10 days - 1), i != 2);
        }
        vm.assertTrue(registry.isActive(ids[3], NOW + 10 days));
        vm.assertTrue(registry.isActive(ids[3], NOW + 20 days));
    }

    function test_RefusesRegistrations() public {
        close(ACME);
        expectRegisterRevert(
            typicalGrant(),
            Consent.None,
            "",
            abi.encodeWithSelector(ISessionRegistry.WorkspaceIsClosed.selector, ACME)
        );
    }

    /// One that never had a session can be closed too; unknown sessions stay as they are.
    function testFuzz_BeforeItsFirstSession(bytes32 name, uint256 unknown) public {
        vm.expectEmit(address(registry));
        emit ISessionRegistry.WorkspaceClosed(name, 0, operator);
        close(name);
        vm.assertFalse(registry.isActive(unknown, NOW));
        vm.assertFalse(registry.exists(unknown));
    }

    function test_RevokedSessionsCanStillBeRevoked() public {
        Grant memory grant = registerTypical();
        close(ACME);
        vm.warp(NOW + 1 days);
        revokeAs(owner, grant);
        vm.assertTrue(registry.session(id).revoked);
        vm.assertFalse(registry.isActive(id, NOW));
    }

    function test_RevertIf_Closed() public {
        close(ACME);
        vm.warp(NOW + 1 days);
        vm.expectRevert(abi.encodeWithSelector(ISessionRegistry.WorkspaceIsClosed.selector, ACME));
        close(ACME);
    }

    function testFuzz_RevertIf_NotOperator(address caller) public {
        vm.assume(caller != operator);
        bytes memory refusal = abi.encodeWithSelector(
            IAccessControl.AccessControlUnauthorizedAccount.selector,
            caller,
            registry.OPERATOR_ROLE()
        );
        vm.prank(caller);
        vm.expectRevert(refusal);
        registry.closeWorkspace(ACME);
    }
}
