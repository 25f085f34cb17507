// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {WebAuthn} from "@openzeppelin/contracts/utils/cryptography/WebAuthn.sol";
import {Consent} from "../interfaces/ISessionRegistry.sol";

/// @title Whether an owner signed a digest
/// @dev One function for each kind of owner. None reverts, whatever the signature holds.
library OwnerSignature {
    /// @dev Gas that a wallet gets to judge a signature: enough for one that verifies P-256 in
    /// Solidity (about 350,000), and a bound on what a hostile one can burn.
    uint256 internal constant ERC1271_GAS = 500_000;
    /// @dev Lengths of a passkey's coordinates, which precede its assertion.
    uint256 private constant PASSKEY_BYTES = 64;

    /// @notice Whether `signature` is the owner's over `digest`; never for `Consent.None`.
    function isValid(Consent kind, address owner, bytes32 digest, bytes calldata signature)
        internal
        view
        returns (bool)
    {
        if (kind == Consent.Eip712) return _isEcdsa(owner, digest, signature);
        if (kind == Consent.Erc1271) return _isErc1271(owner, digest, signature);
        if (kind == Consent.Passkey) return _isPasskey(owner, digest, signature);
        return false;
    }

    /// @notice The address that stands for a passkey: it is made from the key, so that whoever
    /// shows the key needs no other proof that it is the owner's.
    function passkeyOwner(bytes32 x, bytes32 y) internal pure returns (address) {
        return address(uint160(uint256(keccak256(abi.encodePacked("Tallystick passkey", x, y)))));
    }

    /// @dev 65 bytes r ‖ s ‖ v, with `s` in the lower half of the order.
    function _isEcdsa(address owner, bytes32 digest, bytes calldata signature)
        private
        pure
        returns (bool)
    {
        (address recovered, ECDSA.RecoverError failure,) =
            ECDSA.tryRecoverCalldata(digest, signature);
        return failure == ECDSA.RecoverError.NoError && recovered == owner;
    }

    /// @dev https://eips.ethereum.org/EIPS/eip-1271. The wallet cannot change anything, spends a
    /// bounded amount of gas, and of what it returns one word is read.
    function _isErc1271(address wallet, bytes32 digest, bytes calldata signature)
        private
        view
        returns (bool valid)
    {
        bytes memory question = abi.encodeCall(IERC1271.isValidSignature, (digest, signature));
        bytes4 magic = IERC1271.isValidSignature.selector;
        assembly ("memory-safe") {
            let answered :=
                staticcall(ERC1271_GAS, wallet, add(question, 0x20), mload(question), 0x00, 0x20)
            valid := and(answered, and(gt(returndatasize(), 0x1f), eq(mload(0x00), magic)))
        }
    }

    /// @dev A WebAuthn assertion with user verification, whose challenge is the digest:
    /// x ‖ y ‖ abi.encode(r, s, challengeIndex, typeIndex, authenticatorData, clientDataJSON).
    function _isPasskey(address owner, bytes32 digest, bytes calldata signature)
        private
        view
        returns (bool)
    {
        if (signature.length < PASSKEY_BYTES) return false;
        (bytes32 x, bytes32 y) = (bytes32(signature[:32]), bytes32(signature[32:]));
        if (passkeyOwner(x, y) != owner) return false;
        (bool decoded, WebAuthn.WebAuthnAuth calldata assertion) =
            WebAuthn.tryDecodeAuth(signature[PASSKEY_BYTES:]);
        // The library reads at this index before it compares it, at the cost of all gas if it is
        // far outside.
        return decoded && assertion.typeIndex < bytes(assertion.clientDataJSON).length
            && WebAuthn.verify(abi.encodePacked(digest), assertion, x, y);
    }
}
