package xfrmnl

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// Linux knows directions of SAs from 6.10 on. It needs no ESP.
func TestDirections(t *testing.T) {
	t.Parallel()
	ns, c := namespace(t)
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	release := unix.ByteSliceToString(name.Release[:])
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		t.Fatal(release, err)
	}
	want := major > 6 || major == 6 && minor >= 10
	if got, err := c.Directions(); err != nil || got != want {
		t.Errorf("Linux %s: %t, %v, want %t", release, got, err, want)
	}
	h, err := ns.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	if left, err := h.XfrmStateList(unix.AF_UNSPEC); err != nil || len(left) > 0 {
		t.Errorf("the question has left %d SAs, %v", len(left), err)
	}
}
