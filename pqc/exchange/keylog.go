package exchange

import (
	"bytes"
	"io"
)

// sessionSecrets passes on the lines of a TLS key log that open a session's records and keeps all others back, such as an
// EXPORTER_SECRET: that one gives the classical half of an SA's keys.
type sessionSecrets struct{ to io.Writer }

func (s sessionSecrets) Write(line []byte) (int, error) {
	label, _, _ := bytes.Cut(line, []byte(" "))
	switch string(label) {
	case "CLIENT_HANDSHAKE_TRAFFIC_SECRET", "SERVER_HANDSHAKE_TRAFFIC_SECRET", "CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0":
		return s.to.Write(line)
	}
	return len(line), nil
}
