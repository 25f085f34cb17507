// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SessionTest} from "./SessionTest.sol";

contract RevocationDigestTest is SessionTest {
    struct Revocation {
        uint256[] tokenIds;
        uint64 deadline;
    }

    function testFuzz_EqualsAWallets(uint256[] memory tokenIds, uint64 deadline) public view {
        bytes32 structHash = vm.eip712HashStruct(
            "Revocation(uint256[] tokenIds,uint64 deadline)",
            abi.encode(Revocation(tokenIds, deadline))
        );
        vm.assertEq(
            registry.revocationDigest(tokenIds, deadline),
            keccak256(abi.encodePacked(hex"1901", registry.DOMAIN_SEPARATOR(), structHash))
        );
    }
}
