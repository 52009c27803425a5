package lab

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"pqlab/pqc/exchange"
	"pqlab/topology"
)

// Files that the topology names are read before anything is made.
func TestFilesAreChecked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name string, blocks ...*pem.Block) string {
		var text []byte
		for _, b := range blocks {
			text = append(text, pem.EncodeToMemory(b)...)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	identity, other := newPEM(t), newPEM(t)
	good := write("good.pem", identity[0], identity[1])
	for name, c := range map[string]struct {
		certificate, ca string
		ok              bool
	}{
		"good":           {good, good, true},
		"none":           {"", "", true},
		"missing":        {filepath.Join(dir, "nofile.pem"), good, false},
		"directory":      {dir, good, false},
		"endless":        {"/dev/zero", good, false},
		"empty":          {write("empty.pem"), good, false},
		"without key":    {write("nokey.pem", identity[0]), good, false},
		"another's key":  {write("mixed.pem", identity[0], other[1]), good, false},
		"missing CA":     {good, filepath.Join(dir, "nofile.pem"), false},
		"CA without one": {good, write("keyonly.pem", identity[1]), false},
	} {
		plan := &topology.Plan{
			Nodes:   []topology.PlannedNode{{Node: topology.Node{Name: "a", Certificate: c.certificate}}},
			Tunnels: []topology.PlannedTunnel{{Tunnel: topology.Tunnel{Name: "t", CA: c.ca}}},
		}
		if err := check(plan, Options{}); (err == nil) != c.ok || !c.ok && !errors.Is(err, ErrFile) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func newPEM(t *testing.T) [2]*pem.Block {
	t.Helper()
	identity, err := exchange.NewIdentity("a", nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(identity.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return [2]*pem.Block{{Type: "CERTIFICATE", Bytes: identity.Certificate[0]}, {Type: "PRIVATE KEY", Bytes: key}}
}
