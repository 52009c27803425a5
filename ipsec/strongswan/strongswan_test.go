package strongswan

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pqlab/ipsec"
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
