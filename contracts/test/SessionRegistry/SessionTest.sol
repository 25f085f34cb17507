// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AnchorRegistry} from "../../src/AnchorRegistry.sol";
import {SessionRegistry} from "../../src/SessionRegistry.sol";
import {Grant, Limits} from "../../src/interfaces/ISessionRegistry.sol";
import {BaseTest} from "../BaseTest.sol";
import {Vm} from "../Vm.sol";

/// @notice A registry, a session key and a typical grant.
abstract contract SessionTest is BaseTest {
    uint256 internal constant SESSION_KEY = 0x5E5510;
    uint64 internal constant UNTIL = uint64(NOW + 30 days);

    AnchorRegistry internal anchorRegistry;
    SessionRegistry internal registry;
    bytes internal publicKey;
    uint256 internal id;

    function setUp() public virtual override {
        super.setUp();
        anchorRegistry = new AnchorRegistry();
        registry = new SessionRegistry(operator, address(anchorRegistry));
        publicKey = publicKeyOf(SESSION_KEY);
        id = registry.tokenId(publicKey);
    }

    function publicKeyOf(uint256 privateKey) internal returns (bytes memory) {
        Vm.Wallet memory wallet = vm.createWallet(privateKey);
        return abi.encodePacked(bytes1(0x04), wallet.publicKeyX, wallet.publicKeyY);
    }

    function typicalGrant() internal returns (Grant memory grant) {
        grant.owner = owner;
        grant.sessionKey = vm.createWallet(SESSION_KEY).addr;
        grant.auditLog = keccak256("log");
        grant.workspace = "acme";
        grant.agentId = "research-agent-0001";
        grant.permissions = list("payment");
        grant.merchants = new string[](2);
        grant.merchants[0] = "api.example-merchant.com";
        grant.merchants[1] = "https://weather.example.io";
        grant.tokens = list("eip155:8453/erc20:0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913");
        grant.chains = list("eip155:8453");
        grant.limits = Limits(1000e6, 5000e6, 20000e6, type(uint64).max, 500e6);
        grant.conditions = list("at most 10 payments per hour");
        grant.validFrom = uint64(NOW);
        grant.validUntil = UNTIL;
        grant.salt = keccak256("salt");
    }

    function list(string memory only) internal pure returns (string[] memory values) {
        values = new string[](1);
        values[0] = only;
    }

    function consentTo(Grant memory grant) internal view returns (bytes memory) {
        return signed(OWNER_KEY, registry.grantDigest(grant));
    }

    function register(Grant memory grant, bytes memory signature) internal returns (uint256) {
        vm.prank(operator);
        return registry.register(grant, publicKey, signature, false);
    }

    /// @dev A session of the typical grant.
    function registerTypical() internal returns (Grant memory grant) {
        grant = typicalGrant();
        register(grant, consentTo(grant));
    }

    function expectRegisterRevert(
        Grant memory grant,
        bytes memory signature,
        bytes memory revertData
    ) internal {
        vm.prank(operator);
        vm.expectRevert(revertData);
        registry.register(grant, publicKey, signature, false);
        vm.assertFalse(registry.exists(id));
    }
}
