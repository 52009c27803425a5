package agent

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"pqlab/pqc/exchange"
)

// identity is a certificate in files.
type identity struct {
	leaf                   *x509.Certificate
	certificate, key, both string
}

func writeIdentity(t *testing.T, dir, file, name string) identity {
	t.Helper()
	c, err := exchange.NewIdentity(name, nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	id := identity{leaf: c.Leaf, certificate: filepath.Join(dir, file+".crt"), key: filepath.Join(dir, file+".key")}
	for path, block := range map[string]*pem.Block{
		id.certificate: {Type: "CERTIFICATE", Bytes: c.Certificate[0]},
		id.key:         {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	id.both = join(t, dir, id.certificate, id.key)
	return id
}

// join writes one file of several.
func join(t *testing.T, dir string, files ...string) string {
	t.Helper()
	out, err := os.CreateTemp(dir, "*.pem")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write(text); err != nil {
			t.Fatal(err)
		}
	}
	return out.Name()
}
