package agent

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/onsi/gomega/format"
)

// What an agent reveals is read by naming the field, never by printing the whole.
func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	secret := bytes.Repeat([]byte{0xa5}, 32)
	sa := InstalledSA{SPI: 0x1234, Key: secret, Salt: secret[:4]}
	source := SecretSource{Name: "kem", Secret: secret}
	all := Secrets{Sources: []SecretSource{source}, In: sa, Inbound: map[uint32]InstalledSA{1: sa}}
	for _, v := range []any{sa, source, all, &sa, &source, &all, []InstalledSA{sa}, map[uint32]InstalledSA{1: sa}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
			text := fmt.Sprintf(verb, v)
			if strings.Contains(text, "a5a5") || strings.Contains(text, "165") || strings.Contains(text, "0xa5") || strings.Contains(text, string(secret[:4])) {
				t.Errorf("%s of %T: %s", verb, v, text)
			}
		}
		if text := format.Object(v, 1); strings.Contains(text, "165") || strings.Contains(text, "a5a5") || strings.Contains(text, "0xa5") {
			t.Errorf("gomega of %T: %s", v, text)
		}
	}
}
