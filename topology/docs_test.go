package topology_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"pqlab/topology"
)

// Every example of the manual can be planned, and it names everything that a tunnel may choose.
func TestDocs(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../docs/topology.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	blocks := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```").FindAllStringSubmatchIndex(text, -1)
	if len(blocks) < 6 {
		t.Fatalf("%d examples", len(blocks))
	}
	for _, b := range blocks {
		line := strings.Count(text[:b[2]], "\n")
		// Lines before the example keep its positions those of the manual.
		if _, err := topology.Parse("topology.md", []byte(strings.Repeat("\n", line)+text[b[2]:b[3]])); err != nil {
			t.Error(err)
		}
	}
	for _, names := range [][]string{topology.Signatures(), topology.KEMs(), topology.TLSGroups()} {
		for _, n := range names {
			if !strings.Contains(text, "`"+n+"`") {
				t.Errorf("the manual does not name %s", n)
			}
		}
	}
}
