// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Grant, Limits} from "../../src/interfaces/ISessionRegistry.sol";
import {SessionTest} from "./SessionTest.sol";

contract GrantHashTest is SessionTest {
    string private constant LIMITS_TYPE = "Limits(uint64 perTransactionMicroUsd,"
        "uint64 perDayMicroUsd,uint64 perWeekMicroUsd,uint64 perMonthMicroUsd,"
        "uint64 approvalAboveMicroUsd)";
    string private constant GRANT_TYPE = "Grant(address owner,address sessionKey,"
        "bytes32 auditLog,bytes32 parent,string workspace,string agentId,string[] permissions,"
        "string[] merchants,string[] tokens,string[] chains,Limits limits,"
        "string[] conditions,uint64 validFrom,uint64 validUntil,bytes32 salt)";

    /// The other implementation of EIP-712 is forge's.
    function testFuzz_EqualsAnotherImplementation(Grant memory grant) public view {
        vm.assertEq(
            registry.grantHash(grant),
            vm.eip712HashStruct(string.concat(GRANT_TYPE, LIMITS_TYPE), abi.encode(grant))
        );
    }

    function test_EqualsAnotherImplementation_Empty() public view {
        Grant memory grant;
        testFuzz_EqualsAnotherImplementation(grant);
    }

    function test_EqualsAnotherImplementation_Typical() public {
        testFuzz_EqualsAnotherImplementation(typicalGrant());
    }

    function test_SameOnEveryChain() public {
        Grant memory grant = typicalGrant();
        bytes32 before = registry.grantHash(grant);
        vm.chainId(1);
        vm.assertEq(registry.grantHash(grant), before);
    }

    function test_ListsDoNotRunTogether() public {
        Grant memory grant = typicalGrant();
        grant.merchants = new string[](2);
        (grant.merchants[0], grant.merchants[1]) = ("ab", "c");
        bytes32 first = registry.grantHash(grant);
        (grant.merchants[0], grant.merchants[1]) = ("a", "bc");
        vm.assertNotEq(registry.grantHash(grant), first);
        (grant.tokens, grant.merchants) = (grant.merchants, grant.tokens);
        vm.assertNotEq(registry.grantHash(grant), first);
        (grant.conditions, grant.chains) = (grant.chains, grant.conditions);
        vm.assertNotEq(registry.grantHash(grant), first);
    }
}
