// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {Grant, ISessionRegistry, Workspace} from "../../src/interfaces/ISessionRegistry.sol";
import {SessionTest} from "./SessionTest.sol";

contract OpenWorkspaceTest is SessionTest {
    function open(bytes32 name) private {
        vm.prank(operator);
        registry.openWorkspace(name);
    }

    function close(bytes32 name) private {
        vm.prank(operator);
        registry.closeWorkspace(name);
    }

    function testFuzz_EmitsWorkspaceOpened(bytes32 name) public {
        vm.expectEmit(address(registry));
        emit ISessionRegistry.WorkspaceOpened(name, 1, operator);
        open(name);
        vm.assertEq(abi.encode(registry.workspace(name)), abi.encode(Workspace(1, false)));
    }

    function test_BeforeItsFirstSession_WhichThenJoinsTheEpoch() public {
        open("other");
        open(ACME);
        registerTypical();
        vm.assertEq(registry.session(id).epoch, 2);
        vm.assertEq(abi.encode(registry.workspace(ACME)), abi.encode(Workspace(2, false)));
    }

    /// Whoever opens it again does not bring its sessions back.
    function testFuzz_EndedSessionsStayEnded(uint256 timestamp) public {
        registerTypical();
        vm.warp(NOW + 1 days);
        close(ACME);
        open(ACME);
        timestamp = bound(timestamp, NOW + 1 days, type(uint256).max);
        vm.assertFalse(registry.isActive(id, timestamp));
        vm.assertTrue(registry.isActive(id, NOW));
    }

    /// Also in the very second in which it was closed.
    function test_NewSessionsAreActive() public {
        registerTypical();
        uint256 ended = id;
        close(ACME);
        open(ACME);
        useKey(2);
        Grant memory grant = registerTypical();
        vm.assertTrue(registry.isActive(id, NOW));
        vm.assertTrue(registry.isActive(id, grant.validUntil - 1));
        vm.assertEq(registry.session(id).epoch, 2);
        vm.assertFalse(registry.isActive(ended, NOW));
    }

    function test_RevertIf_Open() public {
        open(ACME);
        vm.expectRevert(
            abi.encodeWithSelector(ISessionRegistry.WorkspaceAlreadyOpen.selector, ACME)
        );
        open(ACME);
    }

    function test_RevertIf_OpenedByItsFirstSession() public {
        registerTypical();
        vm.expectRevert(
            abi.encodeWithSelector(ISessionRegistry.WorkspaceAlreadyOpen.selector, ACME)
        );
        open(ACME);
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
        registry.openWorkspace(ACME);
    }
}
