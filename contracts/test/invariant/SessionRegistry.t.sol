// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SessionRegistry} from "../../src/SessionRegistry.sol";
import {Consent, Grant, Session} from "../../src/interfaces/ISessionRegistry.sol";
import {BaseTest} from "../BaseTest.sol";
import {SessionHandler} from "./SessionHandler.sol";

contract SessionRegistryInvariants is BaseTest {
    SessionHandler private handler;
    SessionRegistry private registry;

    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    function setUp() public override {
        super.setUp();
        handler = new SessionHandler();
        registry = handler.sessionRegistry();
    }

    /// The handler inherits its actors, and with them a setUp that would start afresh. What it does
    /// for itself is not for others.
    function excludeSelectors() external view returns (FuzzSelector[] memory excluded) {
        excluded = new FuzzSelector[](1);
        excluded[0] = FuzzSelector(address(handler), new bytes4[](3));
        excluded[0].selectors[0] = handler.setUp.selector;
        excluded[0].selectors[1] = handler.doRevoke.selector;
        excluded[0].selectors[2] = handler.doLower.selector;
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    function invariant_ActiveExactlyWhenItShouldBe() public view {
        for (uint256 i = 0; i < handler.sessionCount(); ++i) {
            uint256 id = handler.ids(i);
            SessionHandler.Expected memory known = handler.expected(id);
            uint256[6] memory moments = [
                handler.time(),
                known.registeredAt,
                known.grant.validFrom,
                known.grant.validUntil - 1,
                known.revokedAt,
                known.closedAt
            ];
            for (uint256 j = 0; j < moments.length; ++j) {
                vm.assertEq(
                    registry.isActive(id, moments[j]), handler.shouldBeActive(id, moments[j])
                );
            }
        }
    }

    function invariant_RevokedNeverReturns() public view {
        for (uint256 i = 0; i < handler.sessionCount(); ++i) {
            uint256 id = handler.ids(i);
            uint256 revokedAt = handler.expected(id).revokedAt;
            vm.assertEq(registry.session(id).revoked, revokedAt != 0);
            if (revokedAt == 0) continue;
            vm.assertTrue(registry.session(id).endsAt <= revokedAt);
            vm.assertFalse(registry.isActive(id, handler.time()));
            vm.assertFalse(registry.isActive(id, type(uint32).max));
        }
    }

    function invariant_NeverActiveBeyondTheGrant() public view {
        for (uint256 i = 0; i < handler.sessionCount(); ++i) {
            uint256 id = handler.ids(i);
            SessionHandler.Expected memory known = handler.expected(id);
            Session memory session = registry.session(id);
            vm.assertTrue(session.startsAt >= known.registeredAt);
            vm.assertTrue(session.startsAt >= known.grant.validFrom);
            vm.assertTrue(session.endsAt <= known.grant.validUntil);
            if (!session.revoked) vm.assertEq(session.endsAt, known.grant.validUntil);
        }
    }

    function invariant_GrantNeverChanges() public view {
        for (uint256 i = 0; i < handler.sessionCount(); ++i) {
            uint256 id = handler.ids(i);
            Grant memory grant = handler.expected(id).grant;
            vm.assertTrue(registry.verifyGrant(id, grant));
            grant.limits.perDayMicroUsd ^= 1;
            vm.assertFalse(registry.verifyGrant(id, grant));
        }
    }

    function invariant_LimitsNeverRise() public view {
        for (uint256 i = 0; i < handler.sessionCount(); ++i) {
            uint256 id = handler.ids(i);
            SessionHandler.Expected memory known = handler.expected(id);
            vm.assertEq(abi.encode(registry.limitsOf(id, known.grant)), abi.encode(known.limits));
            vm.assertTrue(handler.noneRises(known.limits, known.grant.limits));
        }
    }

    function invariant_ConsentIsWhatWasProven() public view {
        for (uint256 i = 0; i < handler.sessionCount(); ++i) {
            uint256 id = handler.ids(i);
            vm.assertTrue(registry.session(id).consent == handler.expected(id).consent);
        }
    }

    function invariant_RotationsLeaveNoGapAndLoseNoConsent() public view {
        for (uint256 i = 0; i < handler.sessionCount(); ++i) {
            uint256 id = handler.ids(i);
            uint256 from = handler.expected(id).rotatedFrom;
            if (from == 0) continue;
            (Session memory old, Session memory session) =
                (registry.session(from), registry.session(id));
            vm.assertTrue(old.revoked);
            vm.assertEq(old.endsAt, session.startsAt);
            vm.assertEq(old.epoch, session.epoch);
            vm.assertTrue(old.consent == Consent.None || session.consent != Consent.None);
            vm.assertEq(handler.expected(from).grant.owner, handler.expected(id).grant.owner);
        }
    }

    function invariant_AnEpochIsOfOneWorkspaceAndOneOpening() public view {
        for (uint256 i = 0; i < handler.sessionCount(); ++i) {
            for (uint256 j = 0; j < i; ++j) {
                (uint256 left, uint256 right) = (handler.ids(i), handler.ids(j));
                SessionHandler.Expected memory one = handler.expected(left);
                SessionHandler.Expected memory other = handler.expected(right);
                vm.assertEq(
                    registry.session(left).epoch == registry.session(right).epoch,
                    one.grant.workspace == other.grant.workspace && one.opening == other.opening
                );
            }
        }
    }

    function invariant_AClosedWorkspaceHasNoActiveSession() public view {
        for (uint8 kind = 0; kind < 2; ++kind) {
            bytes32 name = handler.workspaceOf(kind);
            vm.assertEq(registry.workspace(name).closed, handler.closed(name));
            if (!handler.closed(name)) continue;
            for (uint256 i = 0; i < handler.sessionCount(); ++i) {
                uint256 id = handler.ids(i);
                if (handler.expected(id).grant.workspace != name) continue;
                vm.assertFalse(registry.isActive(id, handler.time()));
                vm.assertFalse(registry.isActive(id, type(uint32).max));
            }
        }
    }

    function invariant_IdentityIsTheSessionKeys() public view {
        for (uint256 i = 0; i < handler.sessionCount(); ++i) {
            uint256 id = handler.ids(i);
            vm.assertTrue(registry.exists(id));
            vm.assertEq(registry.getEthAddress(id), handler.expected(id).grant.sessionKey);
            for (uint256 j = 0; j < i; ++j) {
                vm.assertNotEq(bytes32(id), bytes32(handler.ids(j)));
            }
        }
    }

    function invariant_OnlyTheOperatorHasARole() public view {
        vm.assertTrue(registry.hasRole(registry.OPERATOR_ROLE(), operator));
        vm.assertFalse(registry.hasRole(registry.OPERATOR_ROLE(), stranger));
        vm.assertFalse(registry.hasRole(registry.OPERATOR_ROLE(), owner));
        vm.assertFalse(registry.hasRole(registry.OPERATOR_ROLE(), address(handler)));
    }

    function invariant_HoldsNoValue() public view {
        vm.assertEq(address(registry).balance, 0);
    }

    /// Were the handler's calls empty, the invariants would prove nothing.
    function test_HandlerReachesTheRegistry() public {
        uint64[5] memory drawn = [uint64(1), 1, 1, 1, 1];
        handler.register(2, 0, 5 days, 2);
        handler.register(1, 0, 5 days, 4);
        handler.register(1, 1 days, 5 days, 1);
        handler.lower(0, drawn, true);
        handler.lower(2, drawn, false);
        handler.pass(2 days);
        handler.rotate(0, 3 days, 2);
        handler.rotate(1, 3 days, 0);
        handler.revoke(1, 1, 2);
        handler.revoke(2, 2, 2);
        handler.revoke(1, 1, 0);
        handler.registerAgain(0, 3 days);
        for (uint8 what = 0; what < 6; ++what) {
            handler.trespass(3, what);
        }
        handler.close(1);
        handler.register(1, 0, 5 days, 1);
        handler.open(1);
        handler.register(1, 0, 5 days, 1);
        vm.assertEq(handler.sessionCount(), 6);
        vm.assertEq(handler.rotations(), 1);
        vm.assertEq(handler.revocations(), 2);
        vm.assertEq(handler.lowerings(), 2);
        vm.assertEq(handler.closings(), 1);
        vm.assertEq(handler.refused(), 10);
        invariant_ActiveExactlyWhenItShouldBe();
        invariant_RevokedNeverReturns();
        invariant_NeverActiveBeyondTheGrant();
        invariant_GrantNeverChanges();
        invariant_LimitsNeverRise();
        invariant_ConsentIsWhatWasProven();
        invariant_RotationsLeaveNoGapAndLoseNoConsent();
        invariant_AnEpochIsOfOneWorkspaceAndOneOpening();
        invariant_AClosedWorkspaceHasNoActiveSession();
        invariant_IdentityIsTheSessionKeys();
        invariant_OnlyTheOperatorHasARole();
        invariant_HoldsNoValue();
    }
}
