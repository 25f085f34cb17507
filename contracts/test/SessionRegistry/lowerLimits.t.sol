// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Consent, Grant, ISessionRegistry, Limits} from "../../src/interfaces/ISessionRegistry.sol";
import {SessionTest} from "./SessionTest.sol";

contract LowerLimitsTest is SessionTest {
    function lowerAs(address caller, Grant memory grant, Limits memory limits) private {
        vm.prank(caller);
        registry.lowerLimits(id, grant, limits);
    }

    function expectNotLower(Grant memory grant, Limits memory current, Limits memory proposed)
        private
    {
        vm.expectRevert(
            abi.encodeWithSelector(ISessionRegistry.LimitsNotLower.selector, id, current, proposed)
        );
        lowerAs(owner, grant, proposed);
    }

    function field(Limits memory limits, uint256 index) private pure returns (uint64 value) {
        assembly {
            value := mload(add(limits, mul(index, 0x20)))
        }
    }

    function set(Limits memory limits, uint256 index, uint64 value)
        private
        pure
        returns (Limits memory changed)
    {
        changed = abi.decode(abi.encode(limits), (Limits));
        assembly {
            mstore(add(changed, mul(index, 0x20)), value)
        }
    }

    function test_EmitsLimitsLowered_ByOwner() public {
        Grant memory grant = registerTypical();
        Limits memory lower = set(grant.limits, 1, 1);
        vm.expectEmit(address(registry));
        emit ISessionRegistry.LimitsLowered(id, registry.grantHash(grant), owner, lower);
        lowerAs(owner, grant, lower);
    }

    function test_EmitsLimitsLowered_ByOperator() public {
        Grant memory grant = registerTypical();
        Limits memory lower = set(grant.limits, 1, 1);
        vm.expectEmit(address(registry));
        emit ISessionRegistry.LimitsLowered(id, registry.grantHash(grant), operator, lower);
        lowerAs(operator, grant, lower);
    }

    /// Any limit can be lowered, to anything down to nothing, and is in force at once.
    function testFuzz_InForceAtOnce(uint256 index, uint64 value) public {
        Grant memory grant = registerTypical();
        index = bound(index, 0, 4);
        value = uint64(bound(value, 0, field(grant.limits, index) - 1));
        Limits memory lower = set(grant.limits, index, value);
        lowerAs(owner, grant, lower);
        vm.assertEq(abi.encode(registry.limitsOf(id, grant)), abi.encode(lower));
        vm.assertTrue(registry.verifyGrant(id, grant));
        vm.assertTrue(registry.isActive(id, NOW));
    }

    function test_AgainAndAgain_DownToNothing() public {
        Grant memory grant = registerTypical();
        for (uint64 i = 3; i > 0; --i) {
            Limits memory lower = Limits(i - 1, i - 1, i - 1, i - 1, i - 1);
            lowerAs(i % 2 == 0 ? owner : operator, grant, lower);
            vm.assertEq(abi.encode(registry.limitsOf(id, grant)), abi.encode(lower));
        }
    }

    // Never up

    function testFuzz_RevertIf_OneRises(uint256 index, uint64 value) public {
        Grant memory grant = registerTypical();
        index = bound(index, 0, 4);
        if (index == 3) index = 4; // the month has no limit, so it cannot rise
        value = uint64(bound(value, field(grant.limits, index) + 1, type(uint64).max));
        Limits memory proposed = Limits(0, 0, 0, 0, 0);
        expectNotLower(grant, grant.limits, set(proposed, index, value));
    }

    function test_RevertIf_OneRisesByOne() public {
        Grant memory grant = registerTypical();
        for (uint256 i = 0; i < 5; ++i) {
            if (i == 3) continue;
            uint64 current = field(grant.limits, i);
            expectNotLower(grant, grant.limits, set(Limits(0, 0, 0, 0, 0), i, current + 1));
        }
    }

    /// Back to what the grant allows is up, once they were lowered.
    function testFuzz_RevertIf_BackToTheGrants(uint256 index) public {
        Grant memory grant = registerTypical();
        index = bound(index, 0, 4);
        Limits memory lower = set(grant.limits, index, field(grant.limits, index) - 1);
        lowerAs(owner, grant, lower);
        expectNotLower(grant, lower, grant.limits);
    }

    function test_RevertIf_NoneFalls() public {
        Grant memory grant = registerTypical();
        expectNotLower(grant, grant.limits, grant.limits);
    }

    function testFuzz_RevertIf_NotLowerThanBefore(Limits memory first, Limits memory second)
        public
    {
        Grant memory grant = typicalGrant();
        uint64 most = type(uint64).max;
        grant.limits = Limits(most, most, most, most, most);
        register(grant);
        vm.assume(keccak256(abi.encode(first)) != keccak256(abi.encode(grant.limits)));
        lowerAs(owner, grant, first);
        bool rises;
        for (uint256 i = 0; i < 5; ++i) {
            if (field(second, i) > field(first, i)) rises = true;
        }
        if (rises || keccak256(abi.encode(first)) == keccak256(abi.encode(second))) {
            expectNotLower(grant, first, second);
        } else {
            lowerAs(owner, grant, second);
        }
        Limits memory current = registry.limitsOf(id, grant);
        for (uint256 i = 0; i < 5; ++i) {
            vm.assertTrue(field(current, i) <= field(first, i));
        }
    }

    // Who, and of what

    function testFuzz_RevertIf_NeitherOwnerNorOperator(address caller) public {
        vm.assume(caller != owner && caller != operator);
        Grant memory grant = registerTypical();
        vm.expectRevert(
            abi.encodeWithSelector(ISessionRegistry.NotOwnerOrOperator.selector, caller, owner)
        );
        lowerAs(caller, grant, Limits(0, 0, 0, 0, 0));
    }

    function test_RevertIf_GrantNamesAnotherOwner() public {
        Grant memory grant = registerTypical();
        grant.owner = stranger;
        bytes32 structHash = registry.grantHash(grant);
        vm.expectRevert(
            abi.encodeWithSelector(ISessionRegistry.GrantMismatch.selector, id, structHash)
        );
        lowerAs(stranger, grant, Limits(0, 0, 0, 0, 0));
    }

    /// A grant with higher limits than the registered one would make room to "lower" into.
    function testFuzz_RevertIf_AnotherGrant(uint64 perDay) public {
        Grant memory grant = registerTypical();
        vm.assume(perDay != grant.limits.perDayMicroUsd);
        grant.limits.perDayMicroUsd = perDay;
        bytes32 structHash = registry.grantHash(grant);
        vm.expectRevert(
            abi.encodeWithSelector(ISessionRegistry.GrantMismatch.selector, id, structHash)
        );
        lowerAs(operator, grant, Limits(0, 0, 0, 0, 0));
    }

    function test_RevertIf_Unknown() public {
        Grant memory grant = typicalGrant();
        vm.expectRevert(abi.encodeWithSelector(ISessionRegistry.SessionUnknown.selector, id));
        lowerAs(operator, grant, Limits(0, 0, 0, 0, 0));
    }
}
