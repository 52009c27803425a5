package topology

import "testing"

// What a mistake suggests can be used, and does not only look like what was written.
func TestDidYouMean(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		known []string
		want  string // empty: nothing
	}{
		{"jetson", Profiles(), "jetson-nano"},
		{"blufield-3", Profiles(), "bluefield-3"},
		{"raspberry", Profiles(), "raspberry-pi-4"},
		{"abacus", Profiles(), ""},
		{"ether", linkKinds(), "ethernet"},
		{"h3", []string{"h1", "h2"}, "h1"},
		{"h", []string{"g"}, ""},
		{"\u00e4", []string{"a\u0308"}, ""}, // the same letter, composed and not
		{"lab\u00e4", []string{"laba\u0308", "labs"}, "labs"},
		{"host ", []string{"host\u00a0"}, ""},
	} {
		want := ""
		if tt.want != "" {
			want = ` (did you mean "` + tt.want + `"?)`
		}
		if got := DidYouMean(tt.name, tt.known); got != want {
			t.Errorf("%q: %s, want %s", tt.name, got, want)
		}
	}
}
