package exchange

import (
	"bytes"
	"testing"
)

// Whatever TLS libraries log one day, only what opens records is passed on.
func TestSessionSecrets(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	for _, line := range []string{
		"EXPORTER_SECRET 00 01\n", "EARLY_EXPORTER_MASTER_SECRET 00 01\n", "CLIENT_RANDOM 00 01\n", "SERVER_TRAFFIC_SECRET_0 00 02\n", "\n", "",
	} {
		if n, err := (sessionSecrets{&out}).Write([]byte(line)); n != len(line) || err != nil {
			t.Errorf("%q: %d, %v", line, n, err)
		}
	}
	if out.String() != "SERVER_TRAFFIC_SECRET_0 00 02\n" {
		t.Errorf("passed on: %q", &out)
	}
}
