// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SessionTest} from "../SessionRegistry/SessionTest.sol";
import {SessionRegistry} from "../../src/SessionRegistry.sol";
import {
    Consent,
    Grant,
    Limits,
    Registration,
    SessionRef
} from "../../src/interfaces/ISessionRegistry.sol";
import {SmartWallet} from "../Wallets.sol";

/// @notice Calls a SessionRegistry in any order, and remembers what it must then hold.
contract SessionHandler is SessionTest {
    /// @dev More would make every look at all of them slower, and no state that few cannot reach.
    uint256 private constant SESSIONS_MAX = 10;
    uint256 private constant WORKSPACES = 2;

    /// @dev What a session must be. Times are zero for what did not happen.
    struct Expected {
        Grant grant;
        Limits limits;
        Consent consent;
        uint256 registeredAt;
        uint256 revokedAt;
        uint256 closedAt;
        uint256 opening;
        uint256 rotatedFrom;
    }

    uint256[] public ids;
    uint256 public time = NOW;
    uint256 public revocations;
    uint256 public lowerings;
    uint256 public rotations;
    uint256 public closings;
    uint256 public refused;
    mapping(bytes32 workspace => uint256) public openings;
    mapping(bytes32 workspace => bool) public closed;
    mapping(uint256 id => Expected) private _expected;
    mapping(uint256 id => uint256) private _privateKeys;
    SmartWallet private wallet;

    constructor() {
        setUp();
        wallet = new SmartWallet(owner);
    }

    function sessionCount() external view returns (uint256) {
        return ids.length;
    }

    function sessionRegistry() external view returns (SessionRegistry) {
        return registry;
    }

    function expected(uint256 session) external view returns (Expected memory) {
        return _expected[session];
    }

    function pass(uint256 duration) external {
        time += bound(duration, 0, 10 days);
    }

    function register(uint256 count, uint256 delay, uint256 duration, uint8 kind) external {
        vm.warp(time);
        count = bound(count, 0, 3);
        if (ids.length + count > SESSIONS_MAX) count = SESSIONS_MAX - ids.length;
        Registration[] memory items = new Registration[](count);
        bytes32 name = workspaceOf(kind);
        for (uint256 i = 0; i < count; ++i) {
            items[i] = registrationOf(ids.length + 1 + i, name, delay, duration, kind);
        }
        vm.prank(operator);
        try registry.register(items) {
            for (uint256 i = 0; i < count; ++i) {
                remember(items[i], 0);
            }
        } catch {
            if (!closed[name]) revert("a good registration was refused");
            ++refused;
        }
    }

    function rotate(uint256 sessionSeed, uint256 duration, uint8 kind) external {
        if (ids.length == 0 || ids.length == SESSIONS_MAX) return;
        uint256 session = ids[sessionSeed % ids.length];
        vm.warp(time);
        Expected storage old = _expected[session];
        Registration memory to =
            registrationOf(ids.length + 1, old.grant.workspace, 0, duration, kind);
        SessionRef memory from = ref(session);
        bool may = shouldBeActive(session, time) && old.grant.owner == to.grant.owner
            && (old.consent == Consent.None || to.consent != Consent.None);
        vm.prank(operator);
        try registry.rotate(from, to) {
            if (!may) revert("a wrong rotation was taken");
            _expected[session].revokedAt = time;
            remember(to, session);
            ++rotations;
        } catch {
            if (may) revert("a good rotation was refused");
            ++refused;
        }
    }

    /// @notice By the owner, by an operator, or by anyone with the owner's signature.
    function revoke(uint256 sessionSeed, uint256 otherSeed, uint8 way) external {
        if (ids.length == 0) return;
        SessionRef[] memory refs = new SessionRef[](2);
        refs[0] = ref(ids[sessionSeed % ids.length]);
        refs[1] = ref(ids[otherSeed % ids.length]);
        if (refs[0].owner != refs[1].owner) refs[1] = refs[0];
        vm.warp(time);
        bool left =
            _expected[refs[0].tokenId].revokedAt == 0 || _expected[refs[1].tokenId].revokedAt == 0;
        try this.doRevoke(refs, way % 3) {
            if (!left) revert("revoked twice");
            for (uint256 i = 0; i < 2; ++i) {
                Expected storage session = _expected[refs[i].tokenId];
                if (session.revokedAt == 0) session.revokedAt = time;
            }
            ++revocations;
        } catch {
            if (left) revert("a good revocation was refused");
            ++refused;
        }
    }

    function doRevoke(SessionRef[] calldata refs, uint8 way) external {
        require(msg.sender == address(this));
        if (way < 2) {
            vm.prank(way == 0 ? refs[0].owner : operator);
            registry.revoke(refs);
            return;
        }
        uint256[] memory tokenIds = new uint256[](2);
        (tokenIds[0], tokenIds[1]) = (refs[0].tokenId, refs[1].tokenId);
        bytes32 digest = registry.revocationDigest(tokenIds, uint64(time));
        Consent kind = refs[0].owner == owner ? Consent.Eip712 : Consent.Erc1271;
        vm.prank(stranger);
        registry.revokeBySignature(refs, uint64(time), kind, signed(OWNER_KEY, digest));
    }

    /// @notice To limits drawn around those in force, so that some rise.
    function lower(uint256 sessionSeed, uint64[5] calldata drawn, bool bySignature) external {
        if (ids.length == 0) return;
        uint256 session = ids[sessionSeed % ids.length];
        Limits memory current = _expected[session].limits;
        Limits memory proposed = Limits(
            around(current.perTransactionMicroUsd, drawn[0]),
            around(current.perDayMicroUsd, drawn[1]),
            around(current.perWeekMicroUsd, drawn[2]),
            around(current.perMonthMicroUsd, drawn[3]),
            around(current.approvalAboveMicroUsd, drawn[4])
        );
        bool isLower = noneRises(proposed, current)
            && keccak256(abi.encode(proposed)) != keccak256(abi.encode(current));
        vm.warp(time);
        try this.doLower(session, proposed, bySignature) {
            if (!isLower) revert("limits were raised");
            _expected[session].limits = proposed;
            ++lowerings;
        } catch {
            if (isLower) revert("a good lowering was refused");
            ++refused;
        }
    }

    function doLower(uint256 session, Limits calldata limits, bool bySignature) external {
        require(msg.sender == address(this));
        Grant memory grant = _expected[session].grant;
        if (!bySignature) {
            vm.prank(grant.owner);
            registry.lowerLimits(session, grant, limits);
            return;
        }
        bytes32 digest = registry.loweringDigest(session, limits, uint64(time));
        Consent kind = grant.owner == owner ? Consent.Eip712 : Consent.Erc1271;
        vm.prank(stranger);
        registry.lowerLimitsBySignature(
            session, grant, limits, uint64(time), kind, signed(OWNER_KEY, digest)
        );
    }

    function close(uint8 kind) external {
        bytes32 name = workspaceOf(kind);
        if (closed[name]) return;
        vm.warp(time);
        vm.prank(operator);
        registry.closeWorkspace(name);
        closed[name] = true;
        for (uint256 i = 0; i < ids.length; ++i) {
            Expected storage session = _expected[ids[i]];
            if (session.grant.workspace == name && session.closedAt == 0) session.closedAt = time;
        }
        ++closings;
    }

    function open(uint8 kind) external {
        bytes32 name = workspaceOf(kind);
        if (!closed[name]) return;
        vm.prank(operator);
        registry.openWorkspace(name);
        closed[name] = false;
        ++openings[name];
    }

    /// @notice Everything that only an operator or the owner may, by somebody else.
    function trespass(uint256 sessionSeed, uint8 what) external {
        if (ids.length == 0) return;
        uint256 session = ids[sessionSeed % ids.length];
        Grant memory grant = _expected[session].grant;
        bytes memory data;
        if (what % 6 == 0) data = abi.encodeCall(registry.closeWorkspace, (grant.workspace));
        if (what % 6 == 1) data = abi.encodeCall(registry.openWorkspace, ("new"));
        if (what % 6 == 2) data = abi.encodeCall(registry.revoke, (only(ref(session))));
        if (what % 6 == 3) data = abi.encodeCall(registry.register, (new Registration[](0)));
        if (what % 6 == 4) {
            Limits memory nothing = Limits(0, 0, 0, 0, 0);
            data = abi.encodeCall(registry.lowerLimits, (session, grant, nothing));
        }
        if (what % 6 == 5) {
            bytes32 role = registry.OPERATOR_ROLE();
            data = abi.encodeCall(registry.grantRole, (role, stranger));
        }
        vm.warp(time);
        vm.prank(stranger);
        (bool taken,) = address(registry).call(data);
        if (taken) revert("a stranger was obeyed");
        ++refused;
    }

    /// @notice Nobody can register a session again, or its key with another grant.
    function registerAgain(uint256 sessionSeed, uint256 duration) external {
        if (ids.length == 0) return;
        uint256 session = ids[sessionSeed % ids.length];
        bytes32 name = _expected[session].grant.workspace;
        vm.warp(time);
        Registration memory item = registrationOf(_privateKeys[session], name, 0, duration, 0);
        vm.prank(operator);
        try registry.register(only(item)) {
            revert("registered twice");
        } catch {
            ++refused;
        }
    }

    function shouldBeActive(uint256 session, uint256 timestamp) public view returns (bool) {
        Expected storage known = _expected[session];
        return timestamp >= known.registeredAt && timestamp >= known.grant.validFrom
            && timestamp < known.grant.validUntil
            && (known.revokedAt == 0 || timestamp < known.revokedAt)
            && (known.closedAt == 0 || timestamp < known.closedAt);
    }

    function noneRises(Limits memory proposed, Limits memory current) public pure returns (bool) {
        return proposed.perTransactionMicroUsd <= current.perTransactionMicroUsd
            && proposed.perDayMicroUsd <= current.perDayMicroUsd
            && proposed.perWeekMicroUsd <= current.perWeekMicroUsd
            && proposed.perMonthMicroUsd <= current.perMonthMicroUsd
            && proposed.approvalAboveMicroUsd <= current.approvalAboveMicroUsd;
    }

    function workspaceOf(uint8 kind) public pure returns (bytes32) {
        return keccak256(abi.encode(kind % WORKSPACES));
    }

    function ref(uint256 session) private view returns (SessionRef memory) {
        Grant memory grant = _expected[session].grant;
        return SessionRef(session, grant.owner, registry.grantHash(grant));
    }

    function remember(Registration memory item, uint256 rotatedFrom) private {
        uint256 session = uint256(keccak256(abi.encode(item.x, item.y)));
        ids.push(session);
        _privateKeys[session] = ids.length;
        _expected[session] = Expected({
            grant: item.grant,
            limits: item.grant.limits,
            consent: item.consent,
            registeredAt: time,
            revokedAt: 0,
            closedAt: 0,
            opening: openings[item.grant.workspace],
            rotatedFrom: rotatedFrom
        });
    }

    function registrationOf(
        uint256 privateKey,
        bytes32 name,
        uint256 delay,
        uint256 duration,
        uint8 kind
    ) private returns (Registration memory) {
        useKey(privateKey);
        Grant memory grant = typicalGrant();
        grant.workspace = name;
        grant.validFrom = uint64(time + bound(delay, 0, 10 days));
        grant.validUntil = grant.validFrom + uint64(bound(duration, 1, 30 days));
        Consent consent = Consent((kind >> 1) % 3);
        if ((kind >> 3) % 2 == 1 || consent == Consent.Erc1271) grant.owner = address(wallet);
        if (consent == Consent.Eip712) grant.owner = owner;
        return registration(grant, consent, consent == Consent.None ? bytes("") : consentTo(grant));
    }

    function around(uint64 current, uint64 drawn) private pure returns (uint64) {
        if (drawn % 4 != 0) return current - uint64(bound(drawn, 0, current));
        return current == type(uint64).max ? current : current + uint64(drawn % 8 == 0 ? 0 : 1);
    }
}
