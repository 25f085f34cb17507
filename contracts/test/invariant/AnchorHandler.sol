// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AnchorRegistry} from "../../src/AnchorRegistry.sol";
import {BaseTest} from "../BaseTest.sol";
import {MerkleTree} from "../MerkleTree.sol";

/// @notice Calls an AnchorRegistry in any order, and remembers what it must then hold.
contract AnchorHandler is BaseTest {
    uint256 private constant ACTORS = 3;
    uint256 private constant LOGS_MAX = 5;
    uint64 private constant SIZE_MAX = 60;

    AnchorRegistry public immutable registry = new AnchorRegistry();
    bytes32[] public logs;
    mapping(bytes32 logId => address) public anchorerOf;
    mapping(bytes32 logId => uint64) public sizeOf;
    mapping(bytes32 logId => bytes32) public rootOf;
    uint256 public anchored;
    uint256 public refused;

    function logCount() external view returns (uint256) {
        return logs.length;
    }

    function openLog(uint256 actorSeed, bytes32 salt) external {
        address actor = actorOf(actorSeed);
        bytes32 logId = registry.logIdOf(actor, salt);
        if (logs.length == LOGS_MAX || anchorerOf[logId] != address(0)) return;
        vm.prank(actor);
        registry.openLog(salt);
        logs.push(logId);
        anchorerOf[logId] = actor;
    }

    /// @notice The log's records are those that its id names, as many as `growth` says.
    function anchor(uint256 logSeed, uint256 growth) external {
        if (logs.length == 0) return;
        bytes32 logId = logs[logSeed % logs.length];
        if (sizeOf[logId] == SIZE_MAX) return;
        uint64 left = SIZE_MAX - sizeOf[logId];
        uint64 size = sizeOf[logId] + uint64(bound(growth, 1, left < 10 ? left : 10));
        bytes32 root = MerkleTree.root(MerkleTree.leavesOf(size, logId), 0, size);
        vm.prank(anchorerOf[logId]);
        registry.anchor(logId, size, root);
        (sizeOf[logId], rootOf[logId]) = (size, root);
        ++anchored;
    }

    /// @notice An anchor that breaks a rule, by another actor or of a size not larger.
    function anchorWrongly(uint256 logSeed, uint256 actorSeed, uint64 size) external {
        if (logs.length == 0) return;
        bytes32 logId = logs[logSeed % logs.length];
        address actor = actorOf(actorSeed);
        if (actor == anchorerOf[logId]) size = uint64(bound(size, 0, sizeOf[logId]));
        vm.prank(actor);
        try registry.anchor(logId, size, "wrong") {
            revert("a wrong anchor was taken");
        } catch {
            ++refused;
        }
    }

    /// @notice A log that is open is opened again by nobody.
    function openAgain(uint256 actorSeed, bytes32 salt) external {
        address actor = actorOf(actorSeed);
        if (anchorerOf[registry.logIdOf(actor, salt)] == address(0)) return;
        vm.prank(actor);
        try registry.openLog(salt) {
            revert("a log was opened twice");
        } catch {
            ++refused;
        }
    }

    function actorOf(uint256 seed) private pure returns (address) {
        return address(uint160(0xAC7000 + seed % ACTORS));
    }
}
