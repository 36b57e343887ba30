// sigstore-java as its documentation shows it, with nothing switched off:
//   java -cp 'LIB/*' Stock.java sign blob|statement FILE BUNDLE
//   java -cp 'LIB/*' Stock.java verify FILE BUNDLE IDENTITY ISSUER
// Trust comes from the files in SIGNING_CONFIG and TRUSTED_ROOT, or, where TUF_URL is set, from that repository, pinned by the
// file in TUF_ROOT_FILE. The token is in SIGSTORE_ID_TOKEN.

import dev.sigstore.AlgorithmRegistry;
import dev.sigstore.KeylessSigner;
import dev.sigstore.KeylessVerifier;
import dev.sigstore.SigningConfigProvider;
import dev.sigstore.TrustedRootProvider;
import dev.sigstore.VerificationOptions;
import dev.sigstore.VerificationOptions.CertificateMatcher;
import dev.sigstore.bundle.Bundle;
import dev.sigstore.oidc.client.OidcClients;
import dev.sigstore.oidc.client.TokenStringOidcClient;
import dev.sigstore.strings.StringMatcher;
import dev.sigstore.tuf.RootProvider;
import dev.sigstore.tuf.SigstoreTufClient;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;

public final class Stock {
  private static SigstoreTufClient.Builder repository() throws Exception {
    Path cache = Files.createTempDirectory(Path.of("."), "java-tuf");
    return SigstoreTufClient.builder()
        .tufMirror(
            URI.create(System.getenv("TUF_URL")),
            RootProvider.fromFile(Path.of(System.getenv("TUF_ROOT_FILE"))))
        .tufCacheLocation(cache);
  }

  private static TrustedRootProvider root() throws Exception {
    return System.getenv("TUF_URL") == null
        ? TrustedRootProvider.from(Path.of(System.getenv("TRUSTED_ROOT")))
        : TrustedRootProvider.from(repository());
  }

  private static SigningConfigProvider services() throws Exception {
    return System.getenv("TUF_URL") == null
        ? SigningConfigProvider.from(Path.of(System.getenv("SIGNING_CONFIG")))
        : SigningConfigProvider.from(repository());
  }

  private static Bundle sign(String payload, Path file) throws Exception {
    String token = System.getenv("SIGSTORE_ID_TOKEN");
    KeylessSigner.Builder builder =
        KeylessSigner.builder()
            .trustedRootProvider(root())
            .signingConfigProvider(services())
            .enableRekorV2(true)
            .signingAlgorithm(AlgorithmRegistry.SigningAlgorithm.PKIX_ECDSA_P256_SHA_256)
            .minSigningCertificateLifetime(KeylessSigner.DEFAULT_MIN_SIGNING_CERTIFICATE_LIFETIME)
            .forceCredentialProviders(OidcClients.of(TokenStringOidcClient.from(token)));
    try (KeylessSigner signer = builder.build()) {
      return payload.equals("blob") ? signer.signFile(file) : signer.attest(Files.readString(file));
    }
  }

  public static void main(String[] arguments) throws Exception {
    if (arguments[0].equals("sign")) {
      Bundle bundle = sign(arguments[1], Path.of(arguments[2]));
      Files.writeString(Path.of(arguments[3]), bundle.toJson());
      return;
    }
    Bundle bundle = Bundle.from(Path.of(arguments[2]), StandardCharsets.UTF_8);
    CertificateMatcher who =
        CertificateMatcher.fulcio()
            .subjectAlternativeName(StringMatcher.string(arguments[3]))
            .issuer(StringMatcher.string(arguments[4]))
            .build();
    VerificationOptions options = VerificationOptions.builder().addCertificateMatchers(who).build();
    KeylessVerifier.builder()
        .trustedRootProvider(root())
        .build()
        .verify(Path.of(arguments[1]), bundle, options);
  }
}
