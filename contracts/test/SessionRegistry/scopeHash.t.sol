// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Scope} from "../../src/interfaces/ISessionRegistry.sol";
import {SessionTest} from "./SessionTest.sol";

contract ScopeHashTest is SessionTest {
    string private constant TYPES = "Scope(string agentId,string[] permissions,"
        "string[] merchants,string[] tokens,string[] chains,string[] conditions)";

    /// The other implementation of EIP-712 is forge's.
    function testFuzz_EqualsAnotherImplementation(Scope memory scope) public view {
        vm.assertEq(registry.scopeHash(scope), vm.eip712HashStruct(TYPES, abi.encode(scope)));
    }

    function test_EqualsAnotherImplementation_Empty() public view {
        Scope memory scope;
        testFuzz_EqualsAnotherImplementation(scope);
    }

    function test_EqualsAnotherImplementation_Typical() public view {
        testFuzz_EqualsAnotherImplementation(typicalScope());
    }

    function test_ListsDoNotRunTogether() public view {
        Scope memory scope = typicalScope();
        (scope.merchants[0], scope.merchants[1]) = ("ab", "c");
        bytes32 first = registry.scopeHash(scope);
        (scope.merchants[0], scope.merchants[1]) = ("a", "bc");
        vm.assertNotEq(registry.scopeHash(scope), first);
        (scope.merchants[0], scope.merchants[1]) = ("ab", "c");
        (scope.tokens, scope.merchants) = (scope.merchants, scope.tokens);
        vm.assertNotEq(registry.scopeHash(scope), first);
        (scope.tokens, scope.merchants) = (scope.merchants, scope.tokens);
        (scope.conditions, scope.chains) = (scope.chains, scope.conditions);
        vm.assertNotEq(registry.scopeHash(scope), first);
    }
}
