package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/internal/hygiene"
	"pqlab/internal/journal"
	"pqlab/internal/netns"
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
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
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
		return trial{name: "x", how: "so", needs: "CONFIG_X", instead: "y does it", use: "used", without: "not used", unsure: "ask again", try: try}
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
	// A kernel that hangs is not waited for.
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	hang := make(chan struct{})
	defer close(hang)
	c = line(func() (string, error) { <-hang; return "", nil }).run(ctx)
	var failed *Failure
	if c.Found || !errors.Is(c.Why, context.DeadlineExceeded) || !errors.As(c.Why, &failed) || errors.As(c.Why, &missing) || c.Use != "ask again" {
		t.Errorf("%+v", c)
	}
}

// Only what a machine answers that has not got the thing is a lack. All else leaves it open whether it has: what this user
// is refused, but where that is what was asked; want of memory; and want of a namespace to try in.
func TestLack(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err            error
		lack, ofRights bool // for a capability of the kernel; for one that a user may be refused
	}{
		{unix.EOPNOTSUPP, true, true},
		{unix.EPROTONOSUPPORT, true, true},
		{unix.ENOENT, true, true},
		{unix.ENOSYS, true, true},
		{errMissing, true, true},
		{unix.EPERM, false, true},
		{unix.EACCES, false, true},
		{unix.ENOSPC, false, true},
		{unix.EROFS, false, true},
		{unix.EINVAL, false, true},
		{unix.ENOMEM, false, false},
		{unix.ENOBUFS, false, false},
		{unix.EMFILE, false, false},
		{unix.ETIMEDOUT, false, false},
		{unix.EBUSY, false, false},
		{errors.New("unheard of"), false, false},
		{unplaced(unix.EPERM), false, false},
		{unplaced(unix.ENOENT), false, false},
		{fmt.Errorf("could not be tried: %w", &netns.UnavailableError{Err: unix.ENOSYS}), false, true},
	} {
		for _, rights := range []bool{false, true} {
			c := trial{
				name: "x", how: "did so", needs: "CONFIG_X", unsure: "ask again", rights: rights,
				try: func() (string, error) { return "", fmt.Errorf("link: %w", tt.err) },
			}.run(t.Context())
			lack := tt.lack
			if rights {
				lack = tt.ofRights
			}
			var missing *NotSupported
			var failed *Failure
			if errors.As(c.Why, &missing) != lack || errors.As(c.Why, &failed) == lack || c.Known() != lack || !errors.Is(c.Why, tt.err) {
				t.Errorf("%v, rights %v: %v", tt.err, rights, c.Why)
			}
			if failed != nil && (failed.What != "x" || failed.How != "did so" || c.Use != "ask again") {
				t.Errorf("%v: %+v, use %s", tt.err, failed, c.Use)
			}
		}
	}
}

func TestMarshal(t *testing.T) {
	t.Parallel()
	for _, why := range []error{nil, &NotSupported{What: "x", Err: unix.ENOENT}, &Failure{What: "x", Err: unix.ENOMEM}} {
		in := Capability{Name: "x", Found: why == nil, How: "h", Use: "u", Why: why}
		b, err := json.Marshal(in)
		var out map[string]any
		if err == nil {
			err = json.Unmarshal(b, &out)
		}
		if err != nil || out["name"] != "x" || out["found"] != in.Found || out["how"] != "h" || out["use"] != "u" || out["known"] != in.Known() {
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
	// Why there is no xfrm is told, and what it takes.
	lacks := func(string) error { return &NotSupported{What: esp, Needs: "CONFIG_X", Err: unix.ENOENT} }
	var missing *NotSupported
	if _, err := choose("xfrm", lacks); !errors.Is(err, unix.ENOENT) || !errors.As(err, &missing) || missing.Needs != "CONFIG_X" ||
		!strings.Contains(missing.Instead, "pqlab vm --") || !strings.Contains(missing.Instead, "--dataplane gateway") {
		t.Error(err)
	}
}

// Nobody knows what a probe that failed would have found. So it is no reason to take another dataplane: it is told, with
// what can be done.
func TestDataplaneFailure(t *testing.T) {
	t.Parallel()
	kernel := []string{xfrmPolicies, esp, nfTables}
	answers := func(failing string, lacking ...string) func(string) error {
		return func(name string) error {
			switch {
			case name == failing:
				return &Failure{What: name, How: "tried", Err: context.DeadlineExceeded}
			case slices.Contains(lacking, name):
				return &NotSupported{What: name, Err: unix.ENOENT}
			}
			return nil
		}
	}
	for _, failing := range kernel {
		for _, want := range []string{"", "auto", "xfrm"} {
			got, err := choose(want, answers(failing))
			var failed *Failure
			var missing *NotSupported
			if got != (Plane{}) || !errors.As(err, &failed) || failed.What != failing || errors.As(err, &missing) || errors.Is(err, errors.ErrUnsupported) ||
				!errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "--dataplane gateway") || !strings.Contains(err.Error(), failing) {
				t.Errorf("%q, %s fails: %+v %v", want, failing, got, err)
			}
		}
		if got, err := choose("gateway", answers(failing)); got.Name != Gateway || err != nil {
			t.Errorf("the gateway, %s fails: %+v %v", failing, got, err)
		}
		for _, lacking := range kernel { // then there is none, whatever else
			if got, err := choose("auto", answers(failing, lacking)); lacking != failing && (got.Name != Gateway || err != nil) {
				t.Errorf("%s fails, no %s: %+v %v", failing, lacking, got, err)
			}
		}
	}
	// The gateway finds out itself which of its ports it can have.
	for failing, kind := range map[string]port.Kind{tun: port.Auto, packet: port.TUN} {
		if got, err := choose("gateway", answers(failing)); got != (Plane{Gateway, kind}) || err != nil {
			t.Errorf("%s fails: %+v %v", failing, got, err)
		}
		var failed *Failure
		if got, err := choose("gateway", answers(failing, tun, packet)); !errors.As(err, &failed) || errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s fails, and there is nothing else: %+v %v", failing, got, err)
		}
	}
}

// What All has found out is enough to choose.
func TestAmong(t *testing.T) {
	t.Parallel()
	found := []Capability{{Name: tun, Found: true}, {Name: packet, Found: true}, {Name: xfrmPolicies, Found: true}, {Name: nfTables, Found: true}}
	if _, err := Among(found, "auto"); err == nil {
		t.Error("esp was not tried, but the answer is known")
	}
	if got, err := Among(append(found, Capability{Name: esp, Found: true}), "auto"); got.Name != XFRM || err != nil {
		t.Errorf("%+v %v", got, err)
	}
	if got, err := Among(append(found, Capability{Name: esp, Why: &NotSupported{What: esp, Err: unix.ENOENT}}), "auto"); got.Name != Gateway || err != nil {
		t.Errorf("%+v %v", got, err)
	}
	if got, err := Among(append(found, Capability{Name: esp, Why: &Failure{What: esp, Err: unix.ENOMEM}}), "auto"); err == nil {
		t.Errorf("%+v %v", got, err)
	}
}
