// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Limits} from "../../src/interfaces/ISessionRegistry.sol";
import {SessionTest} from "./SessionTest.sol";

contract LoweringDigestTest is SessionTest {
    struct Lowering {
        uint256 tokenId;
        Limits limits;
        uint64 deadline;
    }

    function testFuzz_EqualsAWallets(uint256 tokenId, Limits memory limits, uint64 deadline)
        public
        view
    {
        bytes32 structHash = vm.eip712HashStruct(
            "Lowering(uint256 tokenId,Limits limits,uint64 deadline)"
            "Limits(uint64 perTransactionMicroUsd,uint64 perDayMicroUsd,"
            "uint64 perWeekMicroUsd,uint64 perMonthMicroUsd,uint64 approvalAboveMicroUsd)",
            abi.encode(Lowering(tokenId, limits, deadline))
        );
        vm.assertEq(
            registry.loweringDigest(tokenId, limits, deadline),
            keccak256(abi.encodePacked(hex"1901", registry.DOMAIN_SEPARATOR(), structHash))
        );
    }
}
