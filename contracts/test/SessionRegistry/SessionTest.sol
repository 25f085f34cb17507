// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AnchorRegistry} from "../../src/AnchorRegistry.sol";
import {SessionRegistry} from "../../src/SessionRegistry.sol";
import {
    Consent,
    Grant,
    ISessionRegistry,
    Limits,
    Registration,
    Scope,
    SessionRef
} from "../../src/interfaces/ISessionRegistry.sol";
import {BaseTest} from "../BaseTest.sol";
import {Vm} from "../Vm.sol";

/// @notice A registry, a session key and a typical grant.
abstract contract SessionTest is BaseTest {
    uint256 internal constant SESSION_KEY = 0x5E5510;
    uint64 internal constant UNTIL = uint64(NOW + 30 days);
    bytes32 internal constant ACME = keccak256("acme");

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

    /// @dev From now on `publicKey` and `id` are those of another session key.
    function useKey(uint256 privateKey) internal {
        publicKey = publicKeyOf(privateKey);
        id = registry.tokenId(publicKey);
    }

    function typicalScope() internal pure returns (Scope memory scope) {
        scope.agentId = "research-agent-0001";
        scope.permissions = list("payment");
        scope.merchants = new string[](2);
        scope.merchants[0] = "api.example-merchant.com";
        scope.merchants[1] = "https://weather.example.io";
        scope.tokens = list("eip155:8453/erc20:0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913");
        scope.chains = list("eip155:8453");
        scope.conditions = list("at most 10 payments per hour");
    }

    /// @dev For the session key that is in use.
    function typicalGrant() internal view returns (Grant memory grant) {
        grant.owner = owner;
        grant.sessionKey = address(uint160(id));
        grant.workspace = ACME;
        grant.limits = Limits(1000e6, 5000e6, 20000e6, type(uint64).max, 500e6);
        grant.scope = registry.scopeHash(typicalScope());
        grant.validFrom = uint64(NOW);
        grant.validUntil = UNTIL;
        grant.auditLog = keccak256("log");
        grant.salt = keccak256("salt");
    }

    function list(string memory item) internal pure returns (string[] memory values) {
        values = new string[](1);
        values[0] = item;
    }

    function consentTo(Grant memory grant) internal view returns (bytes memory) {
        return signed(OWNER_KEY, registry.grantDigest(grant));
    }

    /// @dev Of the session key that is in use.
    function registration(Grant memory grant, Consent consent, bytes memory signature)
        internal
        view
        returns (Registration memory)
    {
        (, bytes32 x, bytes32 y) = split(publicKey);
        return Registration(grant, x, y, false, consent, signature);
    }

    function split(bytes memory key) internal pure returns (bytes1 prefix, bytes32 x, bytes32 y) {
        assembly {
            prefix := mload(add(key, 0x20))
            x := mload(add(key, 0x21))
            y := mload(add(key, 0x41))
        }
    }

    function only(Registration memory item) internal pure returns (Registration[] memory items) {
        items = new Registration[](1);
        items[0] = item;
    }

    function only(SessionRef memory item) internal pure returns (SessionRef[] memory items) {
        items = new SessionRef[](1);
        items[0] = item;
    }

    function only(uint256 item) internal pure returns (uint256[] memory items) {
        items = new uint256[](1);
        items[0] = item;
    }

    function register(Grant memory grant, Consent consent, bytes memory signature) internal {
        Registration memory item = registration(grant, consent, signature);
        vm.prank(operator);
        registry.register(only(item));
    }

    /// @dev With the operator's word only.
    function register(Grant memory grant) internal {
        register(grant, Consent.None, "");
    }

    /// @dev A session of the typical grant, for the session key that is in use.
    function registerTypical() internal returns (Grant memory grant) {
        grant = typicalGrant();
        register(grant, Consent.Eip712, consentTo(grant));
    }

    /// @dev Of the session key that is in use.
    function refTo(Grant memory grant) internal view returns (SessionRef memory) {
        return SessionRef(id, grant.owner, registry.grantHash(grant));
    }

    function revokeAs(address caller, Grant memory grant) internal {
        SessionRef memory ref = refTo(grant);
        vm.prank(caller);
        registry.revoke(only(ref));
    }

    function expectRegisterRevert(
        Grant memory grant,
        Consent consent,
        bytes memory signature,
        bytes memory revertData
    ) internal {
        Registration memory item = registration(grant, consent, signature);
        vm.prank(operator);
        vm.expectRevert(revertData);
        registry.register(only(item));
        vm.assertFalse(registry.exists(id));
    }

    function expectSignatureRevert(Grant memory grant, Consent consent, bytes memory signature)
        internal
    {
        expectRegisterRevert(
            grant,
            consent,
            signature,
            abi.encodeWithSelector(
                ISessionRegistry.OwnerSignatureInvalid.selector,
                grant.owner,
                consent,
                registry.grantDigest(grant)
            )
        );
    }
}
