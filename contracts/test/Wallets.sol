// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {Registration, ISessionRegistry} from "../src/interfaces/ISessionRegistry.sol";

/// @notice Wallets that are contracts, good and hostile ones.
/// @dev https://eips.ethereum.org/EIPS/eip-1271

/// @notice Accepts what one key signed, until it is frozen.
contract SmartWallet is IERC1271 {
    address private immutable signer;
    bool private frozen;

    constructor(address signer_) {
        signer = signer_;
    }

    function freeze() external {
        frozen = true;
    }

    function isValidSignature(bytes32 hash, bytes calldata signature)
        external
        view
        returns (bytes4)
    {
        (address recovered,,) = ECDSA.tryRecoverCalldata(hash, signature);
        return !frozen && recovered == signer ? IERC1271.isValidSignature.selector : bytes4(0);
    }
}

/// @notice Answers any call with bytes chosen beforehand.
contract AnsweringWallet {
    bytes private answer;

    constructor(bytes memory answer_) {
        answer = answer_;
    }

    fallback(bytes calldata) external returns (bytes memory) {
        return answer;
    }
}

contract RevertingWallet {
    fallback() external {
        assembly {
            mstore(0, shl(224, 0x1626ba7e))
            revert(0, 0x20)
        }
    }
}

/// @notice Answers with a megabyte of zeros.
contract FloodingWallet {
    fallback() external {
        assembly {
            return(0, 1000000)
        }
    }
}

/// @notice Burns all the gas that it gets.
contract BurningWallet {
    fallback() external {
        assembly {
            invalid()
        }
    }
}

/// @notice Registers a session of its own while it is asked, and accepts if that worked.
contract ReenteringWallet {
    ISessionRegistry private immutable registry;
    Registration[] private items;

    constructor(ISessionRegistry registry_, Registration memory item) {
        registry = registry_;
        items.push(item);
    }

    function isValidSignature(bytes32, bytes calldata) external returns (bytes4) {
        registry.register(items);
        return IERC1271.isValidSignature.selector;
    }
}
