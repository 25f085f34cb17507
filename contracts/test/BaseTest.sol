// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Vm} from "./Vm.sol";

/// @notice Actors, time and signatures for every test.
abstract contract BaseTest {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    /// @dev Order of secp256k1.
    uint256 internal constant ORDER =
        0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;
    uint256 internal constant OWNER_KEY = 0xA11CE;
    uint256 internal constant STRANGER_KEY = 0xBAD;
    /// @dev Time at which every test starts, Unix seconds.
    uint256 internal constant NOW = 1_800_000_000;

    address internal constant operator = address(0x0BE7A7);
    address internal owner;
    address internal stranger;

    function setUp() public virtual {
        vm.warp(NOW);
        owner = vm.createWallet(OWNER_KEY).addr;
        stranger = vm.createWallet(STRANGER_KEY).addr;
    }

    /// @dev Maps any `value` into [low, high].
    function bound(uint256 value, uint256 low, uint256 high) internal pure returns (uint256) {
        uint256 span = high - low;
        return span == type(uint256).max ? value : low + value % (span + 1);
    }

    /// @dev A signature of 65 bytes: r ‖ s ‖ v.
    function signed(uint256 privateKey, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(privateKey, digest);
        return abi.encodePacked(r, s, v);
    }

    /// @dev The other signature that the same key could have made: s' = n - s.
    function signedHigh(uint256 privateKey, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = highS(privateKey, digest);
        return abi.encodePacked(r, s, v);
    }

    function highS(uint256 privateKey, bytes32 digest)
        internal
        pure
        returns (uint8 v, bytes32 r, bytes32 s)
    {
        (v, r, s) = vm.sign(privateKey, digest);
        return (v == 27 ? 28 : 27, r, bytes32(ORDER - uint256(s)));
    }

    /// @dev Who seems to have signed `digest`, when the signature was made over another one.
    function recovered(uint256 privateKey, bytes32 signedDigest, bytes32 digest)
        internal
        pure
        returns (address)
    {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(privateKey, signedDigest);
        return ecrecover(digest, v, r, s);
    }
}
