// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SessionTest} from "../SessionRegistry/SessionTest.sol";
import {SessionRegistry} from "../../src/SessionRegistry.sol";
import {Grant} from "../../src/interfaces/ISessionRegistry.sol";

/// @notice Registers, revokes and lets time pass in any order, and remembers what was done.
contract SessionHandler is SessionTest {
    uint256[] public ids;
    mapping(uint256 id => uint256) public registeredAt;
    mapping(uint256 id => uint256) public revokedAt;
    uint256 public time = NOW;
    uint256 public revocations;
    uint256 public refused;
    mapping(uint256 id => Grant) private _grants;

    constructor() {
        setUp();
    }

    function sessionCount() external view returns (uint256) {
        return ids.length;
    }

    function sessionRegistry() external view returns (SessionRegistry) {
        return registry;
    }

    function grantOf(uint256 session) external view returns (Grant memory) {
        return _grants[session];
    }

    function pass(uint256 duration) external {
        time += bound(duration, 0, 10 days);
    }

    function open(uint256 delay, uint256 duration, bool consent) external {
        vm.warp(time);
        publicKey = publicKeyOf(ids.length + 1);
        id = registry.tokenId(publicKey);
        Grant memory grant = typicalGrant();
        grant.sessionKey = address(uint160(id));
        grant.validFrom = uint64(time + bound(delay, 0, 10 days));
        grant.validUntil = grant.validFrom + uint64(bound(duration, 1, 30 days));
        register(grant, consent ? consentTo(grant) : bytes(""));
        ids.push(id);
        _grants[id] = grant;
        registeredAt[id] = time;
    }

    function revoke(uint256 sessionSeed, bool byOwner) external {
        if (ids.length == 0) return;
        uint256 session = ids[sessionSeed % ids.length];
        if (revokedAt[session] != 0) return;
        vm.warp(time);
        vm.prank(byOwner ? owner : operator);
        registry.revoke(session, _grants[session]);
        revokedAt[session] = time;
        ++revocations;
    }

    /// @notice Neither a second revocation nor a second registration may ever be taken.
    function tryAgain(uint256 sessionSeed, uint256 duration) external {
        if (ids.length == 0) return;
        uint256 index = sessionSeed % ids.length;
        vm.warp(time);
        Grant memory grant = _grants[ids[index]];
        if (revokedAt[ids[index]] != 0) {
            vm.prank(operator);
            try registry.revoke(ids[index], grant) {
                revert("revoked twice");
            } catch {
                ++refused;
            }
        }
        bytes memory key = publicKeyOf(index + 1);
        grant.validUntil = uint64(time + bound(duration, 1, 30 days));
        vm.prank(operator);
        try registry.register(grant, key, "", true) {
            revert("registered twice");
        } catch {
            ++refused;
        }
    }
}
