// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Grant, Limits, Scope} from "../../src/interfaces/ISessionRegistry.sol";
import {SessionTest} from "./SessionTest.sol";

/// @notice A grant as the owner's wallet gets and shows it.
struct ShownGrant {
    address owner;
    address sessionKey;
    string workspace;
    Limits limits;
    Scope scope;
    uint64 validFrom;
    uint64 validUntil;
    bytes32 auditLog;
    bytes32 parent;
    bytes32 salt;
}

contract GrantHashTest is SessionTest {
    string private constant TYPES = "Grant(address owner,address sessionKey,string workspace,"
        "Limits limits,Scope scope,uint64 validFrom,uint64 validUntil,bytes32 auditLog,"
        "bytes32 parent,bytes32 salt)" "Limits(uint64 perTransactionMicroUsd,"
        "uint64 perDayMicroUsd,uint64 perWeekMicroUsd,uint64 perMonthMicroUsd,"
        "uint64 approvalAboveMicroUsd)" "Scope(string agentId,string[] permissions,"
        "string[] merchants,string[] tokens,string[] chains,string[] conditions)";

    function toGrant(ShownGrant memory shown) private view returns (Grant memory) {
        return Grant({
            owner: shown.owner,
            sessionKey: shown.sessionKey,
            workspace: keccak256(bytes(shown.workspace)),
            limits: shown.limits,
            scope: registry.scopeHash(shown.scope),
            validFrom: shown.validFrom,
            validUntil: shown.validUntil,
            auditLog: shown.auditLog,
            parent: shown.parent,
            salt: shown.salt
        });
    }

    /// What a wallet hashes is what the registry hashes. Here the wallet is forge's EIP-712.
    function testFuzz_EqualsAWallets(ShownGrant memory shown) public view {
        vm.assertEq(
            registry.grantHash(toGrant(shown)), vm.eip712HashStruct(TYPES, abi.encode(shown))
        );
    }

    function test_EqualsAWallets_Empty() public view {
        ShownGrant memory shown;
        testFuzz_EqualsAWallets(shown);
    }

    function test_EqualsAWallets_Typical() public view {
        Grant memory grant = typicalGrant();
        ShownGrant memory shown = ShownGrant({
            owner: grant.owner,
            sessionKey: grant.sessionKey,
            workspace: "acme",
            limits: grant.limits,
            scope: typicalScope(),
            validFrom: grant.validFrom,
            validUntil: grant.validUntil,
            auditLog: grant.auditLog,
            parent: grant.parent,
            salt: grant.salt
        });
        vm.assertEq(abi.encode(toGrant(shown)), abi.encode(grant));
        testFuzz_EqualsAWallets(shown);
    }

    function test_SameOnEveryChain() public {
        Grant memory grant = typicalGrant();
        bytes32 before = registry.grantHash(grant);
        vm.chainId(1);
        vm.assertEq(registry.grantHash(grant), before);
    }
}
