// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Grant} from "../../src/interfaces/ISessionRegistry.sol";
import {SessionTest} from "./SessionTest.sol";

contract VerifyGrantTest is SessionTest {
    function test_TrueForTheRegistered_AlsoAfterRevocation() public {
        Grant memory grant = registerTypical();
        vm.assertTrue(registry.verifyGrant(id, grant));
        revokeAs(owner, grant);
        vm.assertTrue(registry.verifyGrant(id, grant));
    }

    function test_FalseIfUnknown() public {
        Grant memory grant = registerTypical();
        vm.assertFalse(registry.verifyGrant(id + 1, grant));
    }

    function testFuzz_FalseForAnother(bytes32 salt) public {
        Grant memory other = registerTypical();
        vm.assume(salt != other.salt);
        other.salt = salt;
        vm.assertFalse(registry.verifyGrant(id, other));
    }

    function testFuzz_FalseForAnotherOwner(address another) public {
        Grant memory other = registerTypical();
        vm.assume(another != other.owner);
        other.owner = another;
        vm.assertFalse(registry.verifyGrant(id, other));
    }

    function test_FalseWhenOneLimitDiffersByOne() public {
        Grant memory grant = registerTypical();
        grant.limits.perDayMicroUsd += 1;
        vm.assertFalse(registry.verifyGrant(id, grant));
    }
}
