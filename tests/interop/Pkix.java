import java.io.*; import java.net.URI; import java.nio.file.*; import java.security.cert.*; import java.util.*;

/** Validates a chain with Java's PKIX: java Pkix.java ROOT LEAF ISSUER OCSP_URL_OR_- CRL... ; prints "valid", or the reason. */
public class Pkix {
    public static void main(String[] args) throws Exception {
        CertificateFactory factory = CertificateFactory.getInstance("X.509");
        X509Certificate root = certificate(factory, args[0]), leaf = certificate(factory, args[1]), issuer = certificate(factory, args[2]);
        Set<TrustAnchor> anchors = Set.of(new TrustAnchor(root, null));
        PKIXParameters parameters = new PKIXParameters(anchors);
        CertPathValidator validator = CertPathValidator.getInstance("PKIX");
        PKIXRevocationChecker checker = (PKIXRevocationChecker) validator.getRevocationChecker();
        if (args[3].equals("-")) {
            checker.setOptions(EnumSet.of(PKIXRevocationChecker.Option.PREFER_CRLS, PKIXRevocationChecker.Option.NO_FALLBACK));
        } else {
            checker.setOcspResponder(new URI(args[3]));
            checker.setOptions(EnumSet.of(PKIXRevocationChecker.Option.ONLY_END_ENTITY, PKIXRevocationChecker.Option.NO_FALLBACK));
        }
        List<CRL> crls = new ArrayList<>();
        for (int place = 4; place < args.length; place++)
            try (InputStream in = Files.newInputStream(Path.of(args[place]))) { crls.add(factory.generateCRL(in)); }
        parameters.addCertStore(CertStore.getInstance("Collection", new CollectionCertStoreParameters(crls)));
        parameters.addCertPathChecker(checker);
        try {
            validator.validate(factory.generateCertPath(List.of(leaf, issuer)), parameters);
            System.out.println("valid");
        } catch (CertPathValidatorException refused) {
            System.out.println("refused: " + refused.getReason() + ": " + refused.getMessage());
        }
    }

    static X509Certificate certificate(CertificateFactory factory, String path) throws Exception {
        try (InputStream in = Files.newInputStream(Path.of(path))) { return (X509Certificate) factory.generateCertificate(in); }
    }
}
