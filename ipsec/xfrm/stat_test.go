package xfrm

import (
	"maps"
	"testing"

	"pqlab/ipsec"
)

func TestStatistics(t *testing.T) {
	t.Parallel()
	before, err := parseStatistics([]byte("XfrmInError             \t0\nXfrmOutNoStates         \t3\n"))
	if err != nil || !maps.Equal(before, Statistics{"XfrmInError": 0, "XfrmOutNoStates": 3}) {
		t.Fatal(before, err)
	}
	after := Statistics{"XfrmInError": 1, "XfrmOutNoStates": 5, "XfrmInNoPols": 2, "XfrmInNoStates": 4, "XfrmOutError": 8, "XfrmInNews": 16, "XfrmOutNews": 32}
	if got := before.Since(before); len(got) != 0 {
		t.Error(got)
	}
	want := ipsec.Drops{NoSA: 2, Policy: 2, UnknownSPI: 4, Malformed: 1 + 16, Send: 8 + 32}
	if got := after.Since(before).drops(); got != want {
		t.Errorf("%+v", got)
	}
}

func FuzzStatistics(f *testing.F) {
	for _, s := range []string{"", "XfrmInError 0\n", "XfrmInError\n", "a b\n", "a 1 2\n", "a 18446744073709551616\n", "a 1"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseStatistics(b)
		if err == nil {
			s.drops()
		}
	})
}
