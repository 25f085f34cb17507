// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Base64} from "@openzeppelin/contracts/utils/Base64.sol";
import {SessionTest} from "./SessionTest.sol";

/// @notice An owner with a passkey, and the assertions that a browser would make of it.
abstract contract PasskeyTest is SessionTest {
    uint256 internal constant PASSKEY = 0x9A55;
    /// @dev Order of P-256.
    uint256 internal constant P256_ORDER =
        0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551;
    /// @dev User present, user verified.
    bytes1 internal constant UP_UV = 0x05;

    bytes32 internal x;
    bytes32 internal y;

    function setUp() public virtual override {
        super.setUp();
        (uint256 keyX, uint256 keyY) = vm.publicKeyP256(PASSKEY);
        (x, y) = (bytes32(keyX), bytes32(keyY));
        owner = registry.passkeyOwner(x, y);
    }

    function asserted(bytes32 digest) internal view returns (bytes memory) {
        return asserted(PASSKEY, clientData("webauthn.get", digest), UP_UV, false);
    }

    function clientData(string memory kind, bytes32 digest) internal pure returns (string memory) {
        return string.concat(
            '{"type":"',
            kind,
            '","challenge":"',
            Base64.encodeURL(abi.encodePacked(digest)),
            '","origin":"http://localhost","crossOrigin":false}'
        );
    }

    function asserted(uint256 key, string memory json, bytes1 flags, bool high)
        internal
        view
        returns (bytes memory)
    {
        bytes memory authenticatorData = abi.encodePacked(sha256("localhost"), flags, uint32(1));
        (bytes32 r, bytes32 s) =
            vm.signP256(key, sha256(abi.encodePacked(authenticatorData, sha256(bytes(json)))));
        if ((uint256(s) > P256_ORDER / 2) != high) s = bytes32(P256_ORDER - uint256(s));
        return encoded(r, s, authenticatorData, json);
    }

    function encoded(bytes32 r, bytes32 s, bytes memory authenticatorData, string memory json)
        internal
        view
        returns (bytes memory)
    {
        return
            bytes.concat(x, y, abi.encode(r, s, uint256(23), uint256(1), authenticatorData, json));
    }
}
