// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Registry of audit log anchors
/// @notice Keeps, for every log, the newest checkpoint: how many records the log held and the
/// root of their Merkle tree. Earlier anchors stay readable as `Anchored` events.
/// @dev Assumptions and limits, for whoever relies on this contract:
/// - Anyone may open logs. Which log is meant is said by whoever names its id, for example a grant.
/// - A log id is made from the address that opens the log, so nobody can open another's.
/// - Inclusion is checked under the newest anchor. A log keeps its records, so a proof for any of
/// them can be made anew when another anchor has followed.
/// - That a larger log contains the smaller one is not checked here: that takes a consistency
///   proof (RFC 9162, section 2.1.4), which two anchors let anybody check off chain.
/// - The anchorer of a log cannot be changed. Whoever loses the key opens another log.
interface IAnchorRegistry {
    /// @notice A log is open and holds no anchor.
    event LogOpened(bytes32 indexed logId, address indexed anchorer, bytes32 indexed salt);

    /// @notice The log's first `size` records have this root.
    event Anchored(bytes32 indexed logId, uint64 indexed size, bytes32 root);

    /// @notice The log is open already.
    error LogAlreadyOpen(bytes32 logId, address anchorer);
    /// @notice Only the address that opened the log may anchor; zero when nobody has opened it.
    error NotAnchorer(bytes32 logId, address caller, address anchorer);
    /// @notice The size does not exceed that of the latest anchor.
    error SizeNotGrowing(bytes32 logId, uint64 size, uint64 latestSize);

    /// @notice Opens a log, whose anchorer is the caller.
    /// @param salt Tells the caller's logs apart.
    /// @return logId `logIdOf(caller, salt)`.
    function openLog(bytes32 salt) external returns (bytes32 logId);

    /// @notice Anchors a checkpoint. Only for the log's anchorer.
    /// @param size Number of records; more than ever before.
    /// @param root Merkle tree hash of these records (RFC 6962, section 2.1).
    function anchor(bytes32 logId, uint64 size, bytes32 root) external;

    /// @notice The newest anchor; all zero when there is none.
    /// @return size Number of records.
    /// @return root Merkle tree hash of these records.
    /// @return anchoredAt Time of the block that anchored it, Unix seconds.
    function latest(bytes32 logId)
        external
        view
        returns (uint64 size, bytes32 root, uint32 anchoredAt);

    /// @notice Who opened the log; zero when nobody has.
    function anchorerOf(bytes32 logId) external view returns (address);

    /// @notice Whether the newest anchor's tree has the leaf `leaf` at `index`; false for a log that
    /// is not anchored.
    /// @param leaf Hash of the entry: `leafHash(entry)`.
    /// @param index Place of the entry in the log, counted from 0.
    /// @param path Inclusion proof (RFC 9162, section 2.1.3.1), from the leaf's sibling upwards.
    function verifyInclusion(bytes32 logId, bytes32 leaf, uint64 index, bytes32[] calldata path)
        external
        view
        returns (bool);

    /// @notice Hash of a log entry: `sha256(0x00 ‖ entry)` (RFC 6962, section 2.1).
    function leafHash(bytes calldata entry) external pure returns (bytes32);

    /// @notice Id of the log that `anchorer` opens with `salt`:
    /// `keccak256(abi.encode(anchorer, salt))`.
    function logIdOf(address anchorer, bytes32 salt) external pure returns (bytes32);
}
