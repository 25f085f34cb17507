// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {IAnchorRegistry} from "./interfaces/IAnchorRegistry.sol";
import {MerkleLib} from "./libraries/MerkleLib.sol";

/// @title Registry of audit log anchors
/// @notice See {IAnchorRegistry} for the meaning of everything, and what may be relied on.
contract AnchorRegistry is IAnchorRegistry {
    struct Log {
        address anchorer;
        uint64 size;
        uint32 anchoredAt;
        bytes32 root; // in a slot of its own; all before it share one
    }

    mapping(bytes32 logId => Log) private _logs;

    /// @inheritdoc IAnchorRegistry
    function openLog(bytes32 salt) external returns (bytes32 logId) {
        logId = logIdOf(msg.sender, salt);
        address anchorer = _logs[logId].anchorer;
        if (anchorer != address(0)) revert LogAlreadyOpen(logId, anchorer);

        _logs[logId].anchorer = msg.sender;

        emit LogOpened(logId, msg.sender, salt);
    }

    /// @inheritdoc IAnchorRegistry
    function anchor(bytes32 logId, uint64 size, bytes32 root) external {
        Log storage log = _logs[logId];
        (address anchorer, uint64 latestSize) = (log.anchorer, log.size);
        if (msg.sender != anchorer) revert NotAnchorer(logId, msg.sender, anchorer);
        if (size <= latestSize) revert SizeNotGrowing(logId, size, latestSize);

        log.size = size;
        log.anchoredAt = SafeCast.toUint32(block.timestamp);
        log.root = root;

        emit Anchored(logId, size, root);
    }

    /// @inheritdoc IAnchorRegistry
    function latest(bytes32 logId)
        external
        view
        returns (uint64 size, bytes32 root, uint32 anchoredAt)
    {
        Log storage log = _logs[logId];
        return (log.size, log.root, log.anchoredAt);
    }

    /// @inheritdoc IAnchorRegistry
    function anchorerOf(bytes32 logId) external view returns (address) {
        return _logs[logId].anchorer;
    }

    /// @inheritdoc IAnchorRegistry
    function verifyInclusion(bytes32 logId, bytes32 leaf, uint64 index, bytes32[] calldata path)
        external
        view
        returns (bool)
    {
        Log storage log = _logs[logId];
        return MerkleLib.isIncluded(leaf, index, log.size, log.root, path);
    }

    /// @inheritdoc IAnchorRegistry
    function leafHash(bytes calldata entry) external pure returns (bytes32) {
        return MerkleLib.leafHash(entry);
    }

    /// @inheritdoc IAnchorRegistry
    function logIdOf(address anchorer, bytes32 salt) public pure returns (bytes32) {
        return keccak256(abi.encode(anchorer, salt));
    }
}
