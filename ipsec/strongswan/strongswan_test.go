package strongswan

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pqlab/ipsec"
	"pqlab/ipsec/strongswan/vici"
)

func policy() ipsec.Policy {
	return ipsec.Policy{
		Tunnel: "t", Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("192.0.2.2"), PathMTU: 1500,
		Local:  []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00::/64")},
		Remote: []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24"), netip.MustParsePrefix("fd00:0:0:1::/64")},
	}
}

func limits() ipsec.Limits { return ipsec.Limits{Time: 10 * time.Minute, Packets: 1000} }

// The connection says what the topology does, and its text shows no key.
func TestConnection(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		encapsulation ipsec.Encapsulation
		onTraffic     bool
		encap, action string
	}{{ipsec.UDP, false, "yes", "none"}, {ipsec.ESP, true, "no", "trap"}} {
		tunnel := Tunnel{Policy: policy(), Limits: limits(), OnTraffic: tt.onTraffic}
		tunnel.Policy.Encapsulation = tt.encapsulation
		life, err := lifetimesOf(tunnel.Limits, false, 1438)
		if err != nil {
			t.Fatal(err)
		}
		c := connection(&tunnel, life, []byte("own"), []byte("peer")).Section("t")
		child := c.Section("children").Section("t")
		for what, pair := range map[string][2]string{
			"encap": {c.Value("encap"), tt.encap}, "start_action": {child.Value("start_action"), tt.action}, "version": {c.Value("version"), "2"},
			"rekey_time": {child.Value("rekey_time"), "675s"}, "life_time": {child.Value("life_time"), "750s"}, "rekey_packets": {child.Value("rekey_packets"), "999"},
			"life_packets": {child.Value("life_packets"), "4000"}, "rekey_bytes": {child.Value("rekey_bytes"), "0"},
			"if_id_in": {child.Value("if_id_in"), "4500"}, "if_id_out": {child.Value("if_id_out"), "4500"},
		} {
			if pair[0] != pair[1] {
				t.Errorf("%s is %q, want %q", what, pair[0], pair[1])
			}
		}
		lists := map[string]string{}
		for k, items := range c.Lists() {
			lists[k] = strings.Join(items, " ")
		}
		for k, items := range child.Lists() {
			lists[k] = strings.Join(items, " ")
		}
		for k, want := range map[string]string{
			"local_addrs": "192.0.2.1", "remote_addrs": "192.0.2.2", "local_ts": "10.0.0.0/24 fd00::/64", "remote_ts": "10.0.1.0/24 fd00:0:0:1::/64",
			"proposals": "aes256gcm16-prfsha256-x25519", "esp_proposals": "aes256gcm16-x25519-esn",
		} {
			if lists[k] != want {
				t.Errorf("%s is %q, want %q", k, lists[k], want)
			}
		}
		for side, key := range map[string]string{"local": "own", "remote": "peer"} {
			for k, items := range c.Section(side).Lists() {
				if k == "pubkeys" && (len(items) != 1 || items[0] != key) {
					t.Errorf("%s key %q", side, items)
				}
			}
		}
	}
}

// The end with the lower outer address begins rekeys, so exactly one does.
func TestFirst(t *testing.T) {
	t.Parallel()
	a, b := Tunnel{Policy: policy()}, Tunnel{Policy: policy()}
	b.Policy.Src, b.Policy.Dst = b.Policy.Dst, b.Policy.Src
	if a.first() == b.first() {
		t.Error("both or neither")
	}
}

func TestFind(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	cache := t.TempDir()
	installed := executable("/usr/sbin/charon-systemd")
	if _, err := Find(cache); !installed && (!errors.Is(err, ErrMissing) || !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "pqlab vm fetch")) {
		t.Errorf("in an empty cache: %v", err)
	}
	for _, version := range []string{"5.9.8-5", "5.9.11-1", ".fetch-1"} {
		at := filepath.Join(cache, version, program)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	i, err := Find(cache)
	if err != nil || filepath.Dir(i.Root) != cache || strings.HasPrefix(filepath.Base(i.Root), ".") || i.Program != filepath.Join(i.Root, program) {
		t.Errorf("%+v, %v", i, err)
	}
	if err := os.Chmod(i.Program, 0o644); err != nil { // which is not a program then
		t.Fatal(err)
	}
	if other, err := Find(cache); err != nil || other.Root == i.Root {
		t.Errorf("%+v, %v", other, err)
	}
}

// A log keeps its beginning and its end, and says what is missing between.
func TestLogbook(t *testing.T) {
	t.Parallel()
	l := new(logbook)
	for range 10 * maxLog / 8 {
		l.Write([]byte("1234567\n"))
	}
	l.Write([]byte("the end\n"))
	s := l.String()
	if len(s) > 2*maxLog+100 || !strings.HasPrefix(s, "1234567\n") || !strings.HasSuffix(s, "the end\n") || !strings.Contains(s, "left out") {
		t.Errorf("%d bytes, ending with %q", len(s), s[len(s)-20:])
	}
	if got := l.last(2); got != "1234567; the end" {
		t.Errorf("last lines %q", got)
	}
	if got := new(logbook).last(3); got != "" {
		t.Errorf("last lines of nothing %q", got)
	}
}

// fake answers an initiate after a time, as charon does: with success or not.
func fake(after time.Duration, success, errmsg string) vici.Client {
	return vici.Client{Dial: func() (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			take := func() []byte {
				var size [4]byte
				if _, err := io.ReadFull(theirs, size[:]); err != nil {
					return nil
				}
				b := make([]byte, binary.BigEndian.Uint32(size[:]))
				if _, err := io.ReadFull(theirs, b); err != nil {
					return nil
				}
				return b
			}
			give := func(b []byte) {
				_, _ = theirs.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)) // nobody may wait for it any more
			}
			for b := take(); b != nil; b = take() {
				switch {
				case b[0] == 3: // an event is asked for
					give([]byte{5})
				case bytes.Contains(b, []byte("initiate")):
					time.Sleep(after)
					fallthrough
				default:
					answer := "\x01\x03\x07success\x00" + string(rune(len(success))) + success + "\x03\x06errmsg\x00" + string(rune(len(errmsg))) + errmsg
					give([]byte(answer))
				}
			}
		}()
		return ours, nil
	}}
}

// A peer that does not answer is told from one that refuses.
func TestInitiate(t *testing.T) {
	t.Parallel()
	var waited float64
	for i := range repetitions + 1 {
		waited += firstWait.Seconds() * math.Pow(waitGrowth, float64(i))
	}
	gives := time.Duration(waited * float64(time.Second))
	if gives < persistence || gives > persistence+time.Second {
		t.Errorf("charon waits for %v, and is taken to wait for %v", gives, persistence)
	}
	for name, tt := range map[string]struct {
		after, limit time.Duration
		success      string
		ok, silent   bool
	}{
		"keyed":           {time.Second, 10 * time.Second, "yes", true, false},
		"refused":         {time.Second, 10 * time.Second, "no", false, false},
		"silent":          {10 * time.Second, 10 * time.Second, "no", false, true},
		"charon gives up": {gives, time.Hour, "no", false, true},
		"refused, late":   {20 * time.Second, time.Hour, "no", false, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			d := &Daemon{client: fake(tt.after, tt.success, "why")}
			err := d.initiate(t.Context(), "t", tt.limit)
			if (err == nil) != tt.ok || errors.Is(err, ErrSilent) != tt.silent || !tt.ok && !errors.Is(err, vici.ErrRefused) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		d := &Daemon{client: fake(time.Hour, "no", "why")}
		if err := d.initiate(ctx, "t", 2*time.Minute); errors.Is(err, ErrSilent) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a caller who does not wait: %v", err)
		}
		time.Sleep(time.Hour) // what answers ends too
	})
}
