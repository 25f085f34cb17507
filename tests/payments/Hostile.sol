// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// A token with transfers by authorization (EIP-3009), whose subcontracts each do one thing wrong.
abstract contract Token {
    event Transfer(address indexed from, address indexed to, uint256 value);
    event AuthorizationUsed(address indexed authorizer, bytes32 indexed nonce);

    string public constant name = "Hostile";
    string public constant version = "1";
    address internal constant COLLECTOR = address(0xfee);
    bytes32 private constant TYPEHASH = keccak256(
        "TransferWithAuthorization(address from,address to,uint256 value,"
        "uint256 validAfter,uint256 validBefore,bytes32 nonce)"
    );

    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(bytes32 => bool)) internal used;

    function mint(address to, uint256 value) external {
        balanceOf[to] += value;
    }

    function authorizationState(address authorizer, bytes32 nonce)
        external
        view
        virtual
        returns (bool)
    {
        return used[authorizer][nonce];
    }

    function DOMAIN_SEPARATOR() public view returns (bytes32) {
        return keccak256(
            abi.encode(
                keccak256(
                    "EIP712Domain(string name,string version,uint256 chainId,"
                    "address verifyingContract)"
                ),
                keccak256(bytes(name)),
                keccak256(bytes(version)),
                block.chainid,
                address(this)
            )
        );
    }

    function transferWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external returns (bool) {
        require(block.timestamp > validAfter, "authorization is not yet valid");
        require(block.timestamp < validBefore, "authorization is expired");
        bytes32 structHash =
            keccak256(abi.encode(TYPEHASH, from, to, value, validAfter, validBefore, nonce));
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", DOMAIN_SEPARATOR(), structHash));
        require(ecrecover(digest, v, r, s) == from, "invalid signature");
        return _pay(from, to, value, nonce);
    }

    function _pay(address from, address to, uint256 value, bytes32 nonce)
        internal
        virtual
        returns (bool)
    {
        _use(from, nonce);
        _move(from, to, value);
        return true;
    }

    function _use(address from, bytes32 nonce) internal {
        require(!used[from][nonce], "authorization is used or canceled");
        used[from][nonce] = true;
        emit AuthorizationUsed(from, nonce);
    }

    function _move(address from, address to, uint256 value) internal {
        balanceOf[from] -= value;
        balanceOf[to] += value;
        emit Transfer(from, to, value);
    }
}

contract Honest is Token {}

/// Also takes the signatures of contracts (ERC-1271), of any length.
contract TakesWallets is Token {
    function transferWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256,
        uint256,
        bytes32 nonce,
        bytes memory signature
    ) external {
        bytes4 answer = Wallet(from).isValidSignature(bytes32(0), signature);
        require(answer == Wallet.isValidSignature.selector, "invalid signature");
        _pay(from, to, value, nonce);
    }
}

/// A wallet whose signatures are 66 bytes and begin with 0x11.
contract Wallet {
    function isValidSignature(bytes32, bytes memory signature) external pure returns (bytes4) {
        bool valid = signature.length == 66 && signature[0] == 0x11;
        return valid ? this.isValidSignature.selector : bytes4(0);
    }
}

/// A wallet that takes every signature until it changes its mind; the other way is without end.
contract FickleWallet {
    bool private no;
    bool private endless;

    function change(bool forEver) external {
        no = true;
        endless = forEver;
    }

    function isValidSignature(bytes32, bytes memory) external view returns (bytes4) {
        uint256 turns;
        while (endless) {
            turns++;
        }
        return no ? bytes4(0) : this.isValidSignature.selector;
    }
}

/// Stops, as tokens do that somebody owns.
contract Stops is Token {
    bool private stopped;

    function stop() external {
        stopped = true;
    }

    function _pay(address from, address to, uint256 value, bytes32 nonce)
        internal
        override
        returns (bool)
    {
        require(!stopped, "paused");
        _use(from, nonce);
        _move(from, to, value);
        return true;
    }
}

contract TakesAFee is Token {
    function _pay(address from, address to, uint256 value, bytes32 nonce)
        internal
        override
        returns (bool)
    {
        _use(from, nonce);
        _move(from, COLLECTOR, 1);
        _move(from, to, value - 1);
        return true;
    }
}

contract TakesAFeeFromThePayee is Token {
    function _pay(address from, address to, uint256 value, bytes32 nonce)
        internal
        override
        returns (bool)
    {
        _use(from, nonce);
        _move(from, to, value);
        _move(to, COLLECTOR, 1);
        return true;
    }
}

contract PaysSomebodyElse is Token {
    function _pay(address from, address, uint256 value, bytes32 nonce)
        internal
        override
        returns (bool)
    {
        _use(from, nonce);
        _move(from, COLLECTOR, value);
        return true;
    }
}

contract PaysTwice is Token {
    function _pay(address from, address to, uint256 value, bytes32 nonce)
        internal
        override
        returns (bool)
    {
        _use(from, nonce);
        _move(from, to, value);
        _move(from, to, value);
        return true;
    }
}

contract ReturnsFalse is Token {
    function _pay(address, address, uint256, bytes32) internal pure override returns (bool) {
        return false;
    }
}

contract TellsNoTransfer is Token {
    function _pay(address from, address to, uint256 value, bytes32 nonce)
        internal
        override
        returns (bool)
    {
        _use(from, nonce);
        balanceOf[from] -= value;
        balanceOf[to] += value;
        return true;
    }
}

contract TellsNoUse is Token {
    function _pay(address from, address to, uint256 value, bytes32 nonce)
        internal
        override
        returns (bool)
    {
        used[from][nonce] = true;
        _move(from, to, value);
        return true;
    }
}

/// A used nonce passes in silence, and nothing happens.
contract ToleratesUsedNonces is Token {
    function _pay(address from, address to, uint256 value, bytes32 nonce)
        internal
        override
        returns (bool)
    {
        if (used[from][nonce]) return false;
        _use(from, nonce);
        _move(from, to, value);
        return true;
    }
}

/// A nonce is never used up: whoever sends the same again pays again.
contract ForgetsNonces is Token {
    function _pay(address from, address to, uint256 value, bytes32 nonce)
        internal
        override
        returns (bool)
    {
        emit AuthorizationUsed(from, nonce);
        _move(from, to, value);
        return true;
    }
}

contract HasNoState is Token {
    function authorizationState(address, bytes32) external pure override returns (bool) {
        revert();
    }
}

/// Answers calls by their selectors as it was told, to everything else nothing.
contract Answers {
    mapping(bytes4 => bytes) private answers;
    bool private immutable reverts;

    constructor(bytes4[] memory selectors, bytes[] memory told, bool reverting) {
        reverts = reverting;
        for (uint256 i = 0; i < selectors.length; i++) {
            answers[selectors[i]] = told[i];
        }
    }

    fallback(bytes calldata) external returns (bytes memory) {
        require(!reverts || answers[msg.sig].length != 0);
        return answers[msg.sig];
    }
}
