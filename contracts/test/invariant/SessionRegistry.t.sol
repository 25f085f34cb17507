// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SessionRegistry} from "../../src/SessionRegistry.sol";
import {Grant, Session} from "../../src/interfaces/ISessionRegistry.sol";
import {BaseTest} from "../BaseTest.sol";
import {SessionHandler} from "./SessionHandler.sol";

contract SessionRegistryInvariants is BaseTest {
    SessionHandler private handler;
    SessionRegistry private registry;

    function setUp() public override {
        handler = new SessionHandler();
        registry = handler.sessionRegistry();
    }

    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    /// The handler inherits its actors, and with them a setUp that would start afresh.
    function excludeSelectors() external view returns (FuzzSelector[] memory excluded) {
        excluded = new FuzzSelector[](1);
        excluded[0] = FuzzSelector(address(handler), new bytes4[](1));
        excluded[0].selectors[0] = handler.setUp.selector;
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    function invariant_RevokedNeverReturnsToActive() public view {
        for (uint256 i = 0; i < handler.sessionCount(); ++i) {
            uint256 id = handler.ids(i);
            uint256 revokedAt = handler.revokedAt(id);
            vm.assertEq(registry.session(id).revoked, revokedAt != 0);
            if (revokedAt == 0) continue;
            vm.assertFalse(registry.isActive(id, revokedAt));
            vm.assertFalse(registry.isActive(id, handler.time()));
            uint256 grantedUntil = handler.grantOf(id).validUntil;
            if (grantedUntil > revokedAt) {
                vm.assertFalse(registry.isActive(id, (revokedAt + grantedUntil) / 2));
                vm.assertFalse(registry.isActive(id, grantedUntil - 1));
            }
            vm.assertFalse(registry.isActive(id, type(uint32).max));
        }
    }

    function invariant_ActiveOnlyAsGranted() public view {
        for (uint256 i = 0; i < handler.sessionCount(); ++i) {
            uint256 id = handler.ids(i);
            Grant memory grant = handler.grantOf(id);
            Session memory session = registry.session(id);
            vm.assertTrue(registry.verifyGrant(id, grant));
            vm.assertTrue(session.startsAt >= handler.registeredAt(id));
            vm.assertTrue(session.startsAt >= grant.validFrom);
            vm.assertTrue(session.endsAt <= grant.validUntil);
            if (!session.revoked) {
                vm.assertEq(session.endsAt, grant.validUntil);
                vm.assertTrue(registry.isActive(id, grant.validUntil - 1));
            }
        }
    }

    /// Were the handler's calls empty, the invariants would prove nothing.
    function test_HandlerReachesTheRegistry() public {
        handler.open(1 days, 5 days, true);
        handler.open(0, 5 days, false);
        handler.pass(2 days);
        handler.revoke(0, true);
        handler.tryAgain(0, 3 days);
        vm.assertEq(handler.sessionCount(), 2);
        vm.assertEq(handler.revocations(), 1);
        vm.assertEq(handler.refused(), 2);
        vm.assertEq(handler.revokedAt(handler.ids(0)), NOW + 2 days);
        invariant_RevokedNeverReturnsToActive();
        invariant_ActiveOnlyAsGranted();
    }
}
