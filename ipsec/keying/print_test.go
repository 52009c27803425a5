package keying_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"pqlab/ipsec/keying"
	"pqlab/pqc/exchange"
)

// What a service and its peers hold for exchanges is not printed.
func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	c := config(t, exchange.Pin{1})
	key, err := c.Suites[0].Signature.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	c.Pinned = &exchange.Pinned{Own: key}
	certificate, err := exchange.NewIdentity("a", nil)
	if err != nil {
		t.Fatal(err)
	}
	peer := keying.Peer{Tunnel: "t", Config: c}
	s := keying.New(exchange.Endpoint{Certificate: certificate}, nil, nil)
	s.Trust(peer)
	secrets := []any{certificate.PrivateKey, key.Bytes()}
	for _, value := range []any{s, peer, &peer, []any{s, peer}, s.Keyer("t"), map[string]keying.Peer{"t": peer}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			out := fmt.Sprintf(verb, value)
			for _, secret := range secrets {
				if part := strings.Trim(fmt.Sprintf(verb, secret), "[]{}\""); strings.Contains(out, part[len(part)/4:len(part)/2]) {
					t.Errorf("%s of %T prints a key", verb, value)
				}
			}
		}
		out, _ := json.Marshal(value) // a service has none
		for _, secret := range secrets {
			if said, _ := json.Marshal(secret); strings.Contains(string(out), string(said[len(said)/4:len(said)/2])) {
				t.Errorf("JSON of %T prints a key", value)
			}
		}
	}
}
