// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SessionRegistry} from "../../src/SessionRegistry.sol";
import {Grant} from "../../src/interfaces/ISessionRegistry.sol";
import {SessionTest} from "./SessionTest.sol";

contract GrantDigestTest is SessionTest {
    function testFuzz_IsEip712Digest(bytes32 salt) public view {
        Grant memory grant = typicalGrant();
        grant.salt = salt;
        vm.assertEq(
            registry.grantDigest(grant),
            keccak256(
                abi.encodePacked(hex"1901", registry.DOMAIN_SEPARATOR(), registry.grantHash(grant))
            )
        );
    }

    function test_OtherOnAnotherChain() public {
        Grant memory grant = typicalGrant();
        bytes32 here = registry.grantDigest(grant);
        vm.chainId(1);
        vm.assertNotEq(registry.grantDigest(grant), here);
    }

    function test_OtherInAnotherRegistry() public {
        Grant memory grant = typicalGrant();
        SessionRegistry other = new SessionRegistry(operator, address(anchorRegistry));
        vm.assertNotEq(other.grantDigest(grant), registry.grantDigest(grant));
    }
}
