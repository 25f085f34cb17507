// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Consent, Session} from "../../src/interfaces/ISessionRegistry.sol";
import {SessionTest} from "./SessionTest.sol";

contract SessionViewTest is SessionTest {
    function test_Registered() public {
        bytes32 structHash = registry.grantHash(registerTypical());
        bytes19 check = bytes19(keccak256(abi.encode(owner, structHash)));
        vm.assertEq(
            abi.encode(registry.session(id)),
            abi.encode(Session(check, 1, uint32(NOW), uint32(UNTIL), Consent.Eip712, false))
        );
    }

    function testFuzz_AllZeroIfUnknown(uint256 unknown) public {
        registerTypical();
        vm.assume(unknown != id);
        vm.assertEq(abi.encode(registry.session(unknown)), new bytes(192));
    }
}
