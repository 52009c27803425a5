package topology_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pqlab/topology"
)

// Each file of testdata/broken says in comments what Parse must find: "# want: [LINE:]COLUMN KIND[, …]", of the line
// that the comment is in unless it names another.
func TestBroken(t *testing.T) {
	t.Parallel()
	files, _ := filepath.Glob("testdata/broken/*.yaml")
	if len(files) < 20 {
		t.Fatalf("%d broken topologies, want at least 20", len(files))
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := wanted(t, string(data))
			_, err = topology.Load(file)
			var errs topology.Errors
			if !errors.As(err, &errs) {
				t.Fatalf("Load: %v, want Errors", err)
			}
			var got []string
			for _, e := range errs {
				if e.File != file {
					t.Errorf("%v: file %q, want %q", e, e.File, file)
				}
				got = append(got, fmt.Sprintf("%04d:%03d %s", e.Line, e.Column, e.Kind))
			}
			if !slices.IsSorted(positions(errs)) {
				t.Errorf("not sorted by position:\n%v", errs)
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("got  %v\nwant %v\n%v", got, want, errs)
			}
		})
	}
}

func positions(errs topology.Errors) []string {
	var all []string
	for _, e := range errs {
		all = append(all, fmt.Sprintf("%09d:%09d", e.Line, e.Column))
	}
	return all
}

func wanted(t *testing.T, data string) []string {
	var want []string
	comment := regexp.MustCompile(`# want: (.*)$`)
	one := regexp.MustCompile(`^(?:(\d+):)?(\d+) (\w+)$`)
	for i, line := range strings.Split(data, "\n") {
		m := comment.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		for _, w := range strings.Split(m[1], ", ") {
			m := one.FindStringSubmatch(w)
			if m == nil {
				t.Fatalf("line %d: cannot read %q", i+1, w)
			}
			at := i + 1
			if m[1] != "" {
				at, _ = strconv.Atoi(m[1])
			}
			column, _ := strconv.Atoi(m[2])
			want = append(want, fmt.Sprintf("%04d:%03d %s", at, column, m[3]))
		}
	}
	slices.Sort(want)
	return want
}

// A switch has as many ports as a Linux bridge, and the mistake is the first link that finds none.
func TestPortsOfASwitch(t *testing.T) {
	t.Parallel()
	star := func(hosts int) error {
		var nodes, links strings.Builder
		for i := range hosts {
			fmt.Fprintf(&nodes, "  - {name: h%d, kind: host}\n", i)
			fmt.Fprintf(&links, "  - {kind: ethernet, a: h%d, b: s}\n", i)
		}
		_, err := topology.Parse("star.yaml", []byte("nodes:\n  - {name: s, kind: switch}\n"+nodes.String()+"links:\n"+links.String()))
		return err
	}
	if err := star(1023); err != nil {
		t.Error(err)
	}
	var errs topology.Errors
	if err := star(1100); !errors.As(err, &errs) || len(errs) != 1 || errs[0].Kind != topology.BadStructure || errs[0].Line != 2+1100+1+1024 {
		t.Errorf("%v", errs)
	}
}
