package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/internal/hygiene"
	"pqlab/internal/journal"
	"pqlab/internal/rootless"
	"pqlab/ipsec/gateway/port"
)

func TestMain(m *testing.M) {
	journal.SweeperMain()
	if err := rootless.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	os.Exit(m.Run())
}

// TestAll tries this machine and sees that every answer is complete, and that nothing is left. Not parallel: what
// another test of this process has open would be taken for a leftover.
func TestAll(t *testing.T) {
	owner := hygiene.Self()
	before, err := hygiene.Take()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	all := All(t.Context())
	t.Logf("took %v", time.Since(start))
	for _, c := range all {
		t.Logf("%-20s %-5v %s %v", c.Name, c.Found, c.Seen, c.Why)
		if c.Name == "" || c.How == "" || c.Found && (c.Use == "" || c.Why != nil) || !c.Found && c.Why == nil {
			t.Errorf("incomplete: %+v", c)
		}
		var missing *NotSupported
		if !c.Found && !errors.As(c.Why, &missing) {
			t.Errorf("%s: could not be tried: %v", c.Name, c.Why)
		}
		if !c.Found && missing != nil && (missing.Needs == "" || missing.Instead == "" || missing.Err == nil) {
			t.Errorf("%s: no remedy: %+v", c.Name, missing)
		}
	}
	// What this test itself could not do without is there.
	for _, name := range []string{kernel, networkNamespaces, veth, memory} {
		if i := slices.IndexFunc(all, func(c Capability) bool { return c.Name == name }); i < 0 || !all[i].Found {
			t.Errorf("%s was not found", name)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	left, err := hygiene.Settled(ctx, before, owner)
	if err != nil || left != nil {
		t.Errorf("left behind: %q %v", left, err)
	}
}

// Each function is of the line that it is named for.
func TestFunctions(t *testing.T) {
	for name, f := range map[string]func() error{
		userNamespaces: UserNamespaces, networkNamespaces: NetworkNamespaces, ipv6: IPv6, veth: Veth, bridge: Bridge,
		tun: TUN, packet: Packet, udpOffload: UDPOffload, tbf: TBF, netem: Netem, esp: ESP, xfrmPolicies: XFRMPolicies,
		xfrmInterface: XFRMInterface, nfTables: NFTables, cpuLimits: CPULimits, aes: AES, kvm: KVM, qemu: QEMU,
	} {
		var missing *NotSupported
		if err := f(); err != nil && (!errors.As(err, &missing) || missing.What != name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := find("nonsense"); err == nil {
		t.Error("what is not in the table is found")
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	line := func(try func() (string, error)) trial {
		return trial{name: "x", how: "so", needs: "CONFIG_X", instead: "y does it", use: "used", without: "not used", try: try}
	}
	c := line(func() (string, error) { return "2", nil }).run(t.Context())
	if want := (Capability{Name: "x", Found: true, How: "so", Seen: "2", Use: "used"}); c != want {
		t.Errorf("%+v", c)
	}

	var missing *NotSupported
	c = line(func() (string, error) { return "", fmt.Errorf("link: %w", unix.EOPNOTSUPP) }).run(t.Context())
	if c.Found || c.Use != "not used" || !errors.As(c.Why, &missing) || !errors.Is(c.Why, unix.EOPNOTSUPP) ||
		missing.Needs != "CONFIG_X" || missing.Instead != "y does it" || missing.What != "x" {
		t.Errorf("%+v", c)
	}
	// What says nothing about the machine is not called a lack.
	c = line(func() (string, error) { return "", unix.EMFILE }).run(t.Context())
	if c.Found || errors.As(c.Why, &missing) || !errors.Is(c.Why, unix.EMFILE) {
		t.Errorf("%+v", c)
	}
	// A kernel that hangs is not waited for.
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	hang := make(chan struct{})
	defer close(hang)
	c = line(func() (string, error) { <-hang; return "", nil }).run(ctx)
	if c.Found || !errors.Is(c.Why, context.DeadlineExceeded) || c.Use != "not used" {
		t.Errorf("%+v", c)
	}
}

func TestMarshal(t *testing.T) {
	t.Parallel()
	for _, why := range []error{nil, &NotSupported{What: "x", Err: unix.ENOENT}} {
		in := Capability{Name: "x", Found: why == nil, How: "h", Use: "u", Why: why}
		b, err := json.Marshal(in)
		var out map[string]any
		if err == nil {
			err = json.Unmarshal(b, &out)
		}
		if err != nil || out["name"] != "x" || out["found"] != in.Found || out["how"] != "h" || out["use"] != "u" {
			t.Errorf("%s %v", b, err)
		}
		if text, ok := out["why"]; ok != (why != nil) || ok && text != why.Error() {
			t.Errorf("why: %v", text)
		}
	}
}

func TestDataplane(t *testing.T) {
	t.Parallel()
	has := func(names ...string) func(string) error {
		return func(name string) error {
			if slices.Contains(names, name) {
				return nil
			}
			return &NotSupported{What: name, Err: unix.ENOENT}
		}
	}
	tunGateway, packetGateway, kernel := Plane{Gateway, port.TUN}, Plane{Gateway, port.Packet}, Plane{Name: XFRM}
	for _, c := range []struct {
		want  string
		find  func(string) error
		plane Plane
		err   bool
	}{
		{"", has(tun, packet), tunGateway, false},
		{"auto", has(tun, packet), tunGateway, false},
		{"auto", has(tun, packet, esp, xfrmPolicies, nfTables), kernel, false},
		{"auto", has(esp, xfrmPolicies, nfTables), kernel, false},
		{"auto", has(packet, esp, xfrmPolicies), packetGateway, false}, // it could not refuse plaintext
		{"auto", has(packet, xfrmPolicies, nfTables), packetGateway, false},
		{"gateway", has(tun, esp, xfrmPolicies, nfTables), tunGateway, false},
		{"gateway", has(packet), packetGateway, false},
		{"gateway", has(), Plane{}, true},
		{"auto", has(esp), Plane{}, true},
		{"xfrm", has(tun, packet), Plane{}, true},
		{"xfrm", has(tun, packet, esp, nfTables), Plane{}, true},
		{"xfrm", has(esp, xfrmPolicies, nfTables), kernel, false},
		{"offload", has(tun, packet, esp, xfrmPolicies, nfTables), Plane{}, true},
	} {
		got, err := choose(c.want, c.find)
		var missing *NotSupported
		if got != c.plane || (err != nil) != c.err || err != nil && !errors.As(err, &missing) {
			t.Errorf("%q: %+v %v", c.want, got, err)
		}
	}
	if _, err := choose("nonsense", has()); !errors.Is(err, ErrUnknownDataplane) {
		t.Error(err)
	}
	// Why there is no xfrm is told.
	if _, err := choose("xfrm", has(esp)); !errors.Is(err, unix.ENOENT) {
		t.Error(err)
	}
}
