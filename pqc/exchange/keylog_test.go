package exchange_test

import (
	"bytes"
	"encoding/hex"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"pqlab/pqc/exchange"
	"pqlab/pqc/exchange/exchangetest"
)

// keyLog keeps lines of a TLS key log.
type keyLog struct {
	mu    sync.Mutex
	lines []string
}

func (k *keyLog) Write(b []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lines = append(k.lines, string(b))
	return len(b), nil
}

// spoken is a connection that notes what was in the log when its first byte was sent.
type spoken struct {
	net.Conn
	log    *keyLog
	before *int
}

func (s spoken) Write(b []byte) (int, error) {
	s.log.mu.Lock()
	if *s.before < 0 {
		*s.before = len(s.log.lines)
	}
	s.log.mu.Unlock()
	return s.Conn.Write(b)
}

// The responder's key log has what opens the session, before the session has anything to open, and nothing of what the SAs'
// keys come from.
func TestKeyLog(t *testing.T) {
	t.Parallel()
	var revealed exchange.Secrets
	initiator, responder := pair(t, exchange.Config{Suites: anySuite(t), Reveal: func(s exchange.Secrets) { revealed = s }})
	initiator.Config.Reveal = nil
	var log, none keyLog
	responder.Endpoint.KeyLog, initiator.Endpoint.KeyLog = &log, &none
	before := -1
	a, b := net.Pipe()
	r := exchangetest.Run(t.Context(), initiator, responder, a, spoken{b, &log, &before})
	agreed(t, r)
	defer r.Wipe()
	var labels []string
	random := ""
	for _, l := range log.lines {
		fields := strings.Fields(l)
		if len(fields) != 3 || !strings.HasSuffix(l, "\n") || random != "" && fields[1] != random {
			t.Fatalf("a line of %d fields", len(fields))
		}
		labels, random = append(labels, fields[0]), fields[1]
		for _, source := range revealed.Sources {
			if fields[2] == hex.EncodeToString(source.Secret) {
				t.Errorf("%s is the source %s", fields[0], source.Name)
			}
		}
	}
	slices.Sort(labels)
	want := []string{"CLIENT_HANDSHAKE_TRAFFIC_SECRET", "CLIENT_TRAFFIC_SECRET_0", "SERVER_HANDSHAKE_TRAFFIC_SECRET", "SERVER_TRAFFIC_SECRET_0"}
	if !slices.Equal(labels, want) || len(revealed.Sources) != 2 {
		t.Errorf("labels %v, sources %d", labels, len(revealed.Sources))
	}
	if before != len(want) {
		t.Errorf("%d lines before the first byte was sent, want %d", before, len(want))
	}
	if len(none.lines) > 0 {
		t.Error("the initiator logs too")
	}
	if bytes.Contains([]byte(strings.Join(log.lines, "")), []byte("EXPORTER")) {
		t.Error("the exporter's secret is told")
	}
}
