// Package docs_test holds what the documents show against what there is.
package docs_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pqlab/topology"
)

// document is a file that people read.
type document struct {
	path string // from this directory
	text string
}

func documents(t *testing.T) []document {
	t.Helper()
	paths, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	var all []document
	for _, p := range append(paths, "../README.md") {
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, document{p, string(text)})
	}
	return all
}

// block is lines of code in a document.
type block struct {
	language string // of a fenced block; empty if it has none or is indented
	line     int    // of its first line, from 0
	lines    []string
}

// blocks finds fenced and indented code.
func (d document) blocks() []block {
	var all []block
	var open *block
	indented := false
	end := func() {
		if open != nil {
			all = append(all, *open)
		}
		open, indented = nil, false
	}
	blank := true
	for i, line := range strings.Split(d.text, "\n") {
		fence := strings.HasPrefix(line, "```")
		switch {
		case fence && open != nil && !indented:
			end()
		case fence:
			end()
			open = &block{language: strings.TrimPrefix(line, "```"), line: i + 1}
		case open != nil && !indented:
			open.lines = append(open.lines, line)
		case strings.HasPrefix(line, "    ") && (blank || indented):
			if open == nil {
				open, indented = &block{line: i}, true
			}
			open.lines = append(open.lines, strings.TrimPrefix(line, "    "))
		case line != "":
			end()
		}
		blank = line == ""
	}
	end()
	return all
}

// Every topology that is shown can be planned.
func TestTopologies(t *testing.T) {
	t.Parallel()
	counts := map[string]int{}
	for _, d := range documents(t) {
		for _, b := range d.blocks() {
			if b.language != "yaml" {
				continue
			}
			counts[filepath.Base(d.path)]++
			// Lines before the example make its positions those of the document.
			text := strings.Repeat("\n", b.line) + strings.Join(b.lines, "\n") + "\n"
			top, err := topology.Parse(d.path, []byte(text))
			if err == nil {
				_, err = top.Plan()
			}
			if err != nil {
				t.Error(err)
			}
		}
	}
	if counts["topology.md"] < 6 || counts["README.md"] < 1 {
		t.Errorf("examples found: %v", counts)
	}
}

// The manual of the language names everything that a tunnel may choose.
func TestTopologyNames(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("topology.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, names := range [][]string{topology.Signatures(), topology.KEMs(), topology.TLSGroups()} {
		for _, n := range names {
			if !bytes.Contains(text, []byte("`"+n+"`")) {
				t.Errorf("the manual does not name %s", n)
			}
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// Every relative link leads to a file.
func TestLinks(t *testing.T) {
	t.Parallel()
	found := 0
	for _, d := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(d.text, -1) {
			to, _, _ := strings.Cut(m[1], "#")
			if to == "" || strings.Contains(to, "://") || strings.HasPrefix(to, "mailto:") {
				continue
			}
			found++
			if _, err := os.Stat(filepath.Join(filepath.Dir(d.path), to)); err != nil {
				t.Errorf("%s: the link to %s leads nowhere", d.path, m[1])
			}
		}
	}
	if found < 10 {
		t.Errorf("%d links found", found)
	}
}

var target = regexp.MustCompile(`(?m)^([a-z]+):`)

// Every target of make that is shown exists.
func TestMake(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	var targets []string
	for _, m := range target.FindAllStringSubmatch(string(text), -1) {
		targets = append(targets, m[1])
	}
	found := 0
	for _, d := range documents(t) {
		for _, c := range d.commands("make") {
			found++
			for _, word := range c.words {
				if !strings.Contains(word, "=") && !strings.HasPrefix(word, "-") && !slices.Contains(targets, word) {
					t.Errorf("%s: make has no target %s", c.at, word)
				}
			}
		}
	}
	if found < 3 || len(targets) < 4 {
		t.Errorf("%d uses of make found, of %d targets", found, len(targets))
	}
}

// command is a command line that a document shows.
type command struct {
	at    string   // where
	words []string // after the program's name
}

var inline = regexp.MustCompile("`([^`\n]+)`")

// commands finds the lines of code, and the code in running text, that begin with the name of a program.
func (d document) commands(program string) []command {
	var all []command
	add := func(line int, text string) {
		text = strings.TrimPrefix(strings.TrimSpace(text), "$ ")
		text = strings.TrimPrefix(strings.TrimPrefix(text, "sudo "), "bin/")
		rest, ok := strings.CutPrefix(text, program+" ")
		if !ok {
			return
		}
		rest, _, _ = strings.Cut(rest, "   ") // an explanation beside it
		rest, _, _ = strings.Cut(rest, " #")
		for _, stop := range []string{" | ", " && ", " > ", " 2>", ";"} {
			if program != "pqlab" || stop != " | " || !strings.Contains(rest, " | ps") { // "up | ps | exec | down" are alternatives
				rest, _, _ = strings.Cut(rest, stop)
			}
		}
		if len(strings.Fields(rest)) == 0 {
			return
		}
		all = append(all, command{fmt.Sprintf("%s:%d", d.path, line+1), strings.Fields(rest)})
	}
	code := map[int]bool{}
	for _, b := range d.blocks() {
		for i, line := range b.lines {
			code[b.line+i] = true
			if b.language == "" || b.language == "sh" || b.language == "console" || b.language == "shell" || b.language == "bash" {
				add(b.line+i, line)
			}
		}
	}
	for i, line := range strings.Split(d.text, "\n") {
		if !code[i] {
			for _, m := range inline.FindAllStringSubmatch(line, -1) {
				add(i, m[1])
			}
		}
	}
	return all
}

// What is shown of the program is what the program does.
func TestProgram(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pqlab")
	if out, err := exec.Command("go", "build", "-o", path, "../cmd/pqlab").CombinedOutput(); err != nil {
		t.Fatalf("building pqlab: %v: %s", err, out)
	}
	t.Run("commands", func(t *testing.T) { commands(t, path) })
	t.Run("picture", func(t *testing.T) { picture(t, path) })
}

// help is what a command says of itself.
type help struct {
	commands []string
	flags    []string // long and short, with their dashes
}

var (
	listed = regexp.MustCompile(`(?m)^  ([a-z][a-z-]*) +\S`)
	flag   = regexp.MustCompile(`(?m)^ +(?:(-\w), )?(--[a-z-]+)`)
)

func helpOf(path string, command ...string) (help, error) {
	out, err := exec.Command(path, append(slices.Clone(command), "--help")...).CombinedOutput()
	if err != nil {
		return help{}, fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, out)
	}
	h := help{flags: []string{"--help", "-h"}}
	text := string(out)
	if _, available, ok := strings.Cut(text, "Available Commands:\n"); ok {
		available, _, _ = strings.Cut(available, "\n\n")
		for _, m := range listed.FindAllStringSubmatch(available+"\n", -1) {
			h.commands = append(h.commands, m[1])
		}
	}
	if i := strings.Index(text, "Flags:\n"); i >= 0 {
		for _, m := range flag.FindAllStringSubmatch(text[i:], -1) {
			h.flags = append(h.flags, m[1], m[2])
		}
	}
	return h, nil
}

// commands: every command line of pqlab that is shown names commands and flags that exist.
func commands(t *testing.T, path string) {
	root, err := helpOf(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(root.commands) < 8 {
		t.Fatalf("commands %v", root.commands)
	}
	helps := map[string]help{"": root}
	helpFor := func(words ...string) help {
		key := strings.Join(words, " ")
		if _, ok := helps[key]; !ok {
			h, err := helpOf(path, words...)
			if err != nil {
				t.Fatal(err)
			}
			helps[key] = h
		}
		return helps[key]
	}
	found := map[string]int{}
	for _, d := range documents(t) {
		for _, c := range d.commands("pqlab") {
			for _, words := range alternatives(c.words) {
				found[words[0]]++
				var named []string // the command, and the command below it
				for len(words) > 0 && len(helpFor(named...).commands) > 0 &&
					!strings.HasPrefix(words[0], "-") && !strings.HasPrefix(words[0], "…") && words[0] != "help" {
					if !slices.Contains(helpFor(named...).commands, words[0]) {
						t.Errorf("%s: pqlab %s: no command %q", c.at, strings.Join(named, " "), words[0])
						break
					}
					named, words = append(named, words[0]), words[1:]
				}
				for _, w := range words {
					if w == "--" { // what follows is another program's
						break
					}
					w, _, _ = strings.Cut(strings.Trim(w, "[]…,."), "=")
					if w != "-" && strings.HasPrefix(w, "-") && !slices.Contains(helpFor(named...).flags, w) {
						t.Errorf("%s: pqlab %s has no flag %s", c.at, strings.Join(named, " "), w)
					}
				}
			}
		}
	}
	if len(found) < 8 {
		t.Errorf("commands found: %v", found)
	}
}

// alternatives splits "up | ps | down" into three command lines, and "bench labs | tunnel" into "bench labs" and
// "bench tunnel".
func alternatives(words []string) [][]string {
	i := slices.Index(words, "|")
	if i < 0 {
		return [][]string{words}
	}
	prefix := words[:max(0, i-1)]
	all := [][]string{words[:i]}
	for ; i >= 0 && i+1 < len(words); i = next(words, i) {
		all = append(all, append(slices.Clone(prefix), words[i+1]))
	}
	return all
}

func next(words []string, i int) int {
	if j := slices.Index(words[i+1:], "|"); j >= 0 {
		return i + 1 + j
	}
	return -1
}

func TestAlternatives(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"run T":               "run T",
		"up | ps | down":      "up, ps, down",
		"bench labs | tunnel": "bench labs, bench tunnel",
	} {
		var got []string
		for _, a := range alternatives(strings.Fields(text)) {
			got = append(got, strings.Join(a, " "))
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("%s: %q", text, got)
		}
	}
}

// picture: the one in the README is what pqlab draws.
func picture(t *testing.T, path string) {
	want, err := os.ReadFile("north-south.svg")
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd := exec.Command(path, "show", "north-south", "--svg")
	cmd.Stderr = &stderr
	got, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &stderr)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/north-south.svg is another; make it anew: pqlab show north-south --svg > docs/north-south.svg")
	}
}
