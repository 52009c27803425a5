package docs_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/ginkgo/v2"

	"pqlab/suites"
	"pqlab/suites/testlab"
)

// spec is one of a claim's, by the texts of its containers from the outside in, and by its own.
type spec struct {
	claim string
	texts []string
}

// is says whether a document means the spec by a name: its text, or that of a container and so on down to some text.
func (s spec) is(name string) bool {
	for i := range s.texts {
		for j := range s.texts[i:] {
			if strings.Join(s.texts[i:i+j+1], " ") == name {
				return true
			}
		}
	}
	return false
}

// specs lists those of every claim without running them.
func specs() (all []spec) {
	for _, c := range suites.Claims() {
		Describe(c.Name, func() { c.Specs(testlab.Env{}) })
	}
	for _, r := range PreviewSpecs("documents").SpecReports {
		if texts := append(slices.Clone(r.ContainerHierarchyTexts), r.LeafNodeText); len(texts) > 1 {
			all = append(all, spec{texts[0], texts[1:]})
		}
	}
	return all
}

// Every spec that a document names is there, and combining.md names every one of the suite combine.
func TestSpecs(t *testing.T) {
	all := specs()
	var claims []string
	for _, c := range suites.Claims() {
		claims = append(claims, c.Name)
		if !slices.ContainsFunc(all, func(s spec) bool { return s.claim == c.Name }) {
			t.Errorf("no spec of %s found", c.Name)
		}
	}
	reference := regexp.MustCompile("`(" + strings.Join(claims, "|") + "): ([^`]+)`")
	named := map[string]bool{} // the specs of combine, in combining.md
	for _, d := range documents(t) {
		for i, line := range strings.Split(d.text, "\n") {
			for _, m := range reference.FindAllStringSubmatch(line, -1) {
				found := false
				for _, s := range all {
					if s.claim == m[1] && s.is(m[2]) {
						found = true
						named[fmt.Sprint(d.path, s)] = true
					}
				}
				if !found {
					t.Errorf("%s:%d: the suite %s has no spec %q", d.path, i+1, m[1], m[2])
				}
			}
		}
	}
	for _, s := range all {
		if s.claim == "combine" && !named[fmt.Sprint("combining.md", s)] {
			t.Errorf("combining.md does not name the spec %q", strings.Join(s.texts, " / "))
		}
	}
}
