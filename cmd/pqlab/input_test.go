package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What a user gets wrong is told with the name of the flag or the thing, on standard error only, ends with 2, and makes
// nothing.
func TestBadInput(t *testing.T) {
	file := write(t, "nodes: []\n")
	plain := write(t, "nodes: [{name: a, kind: host}, {name: b, kind: host}]\nlinks: [{kind: ethernet, a: a, b: b}]\n")
	for _, c := range []struct{ args, names string }{
		{"run pair --suite rsa+dh", "--suite"},
		{"run pair --combiner and", "--combiner"},
		{"run pair --identity none", "--identity"},
		{"run pair --encapsulation gre", "--encapsulation"},
		{"run pair --dataplane ebpf", "--dataplane"},
		{"run pair --family ipx", "--family"},
		{"run pair --tls-groups X448", "--tls-groups"},
		{"run pair --mutual=perhaps", "--mutual"},
		{"run pair --rekey-time soon", "--rekey-time"},
		{"run pair --rekey-time -1s", "--rekey-time"},
		{"run pair --rekey-time 1ms", "--rekey-time"},
		{"run pair --rekey-blocks -1", "--rekey-blocks"},
		{"run pair --rekey-blocks 1", "--rekey-blocks"},
		{"run pair --rekey-bytes many", "--rekey-bytes"},
		{"run pair --rekey-bytes 10", "--rekey-bytes"},
		{"run pair --rekey-packets 1.5", "--rekey-packets"},
		{"run pair --rekey-packets 1", "--rekey-packets"},
		{"run pair --rekey-time 0s", "--rekey-time"},
		{"run pair --rekey-blocks 0", "--rekey-blocks"},
		{"run pair --rekey-bytes 0KiB", "--rekey-bytes"},
		{"run pair --rekey-packets 0", "--rekey-packets"},
		{"run pair --seed 0", "--seed"},
		{"run pair --tls-groups=", "--tls-groups"},
		{"run pair --seed -1", "--seed"},
		{"run pair --shaper magic", "--shaper"},
		{"run pair --gateway-port serial", "--gateway-port"},
		{"run pair --duration 0", "--duration"},
		{"run pair --duration 1ns", "--duration"},
		{"run PLAIN --suite dilithium3+kyber768", "--suite"},
		{"up PLAIN --mutual", "--mutual"},
		{"run pair --duration -1s", "--duration"},
		{"run pair --duration 25h", "--duration"},
		{"run pair --duration long", "--duration"},
		{"run pair --report FILE", "--report"},
		{"run pair --report FILE/in", "--report"},
		{"run pair --capture FILE", "--capture"},
		{"run pair --json=maybe", "--json"},
		{"run pair --nonsense", "--nonsense"},
		{"run", "run --help"},
		{"run pair pair", "run --help"},
		{"run pare", `"pair"`},
		{"run east-wset", `"east-west"`},
		{"run FILE", filepath.Base(file)},
		{"run DIR", "DIR"},
		{"run PROFILE", "node a"},
		{"up pair --name a/b", "--name"},
		{"up pair --suite rsa+dh", "--suite"},
		{"up pair --rekey-packets 1", "--rekey-packets"},
		{"up pare", `"pair"`},
		{"up PROFILE", "node a"},
		{"ps nobodys-lab", "nobodys-lab"},
		{"ps a/b/c", "b/c"},
		{"down nobodys-lab", "nobodys-lab"},
		{"link set nobodys-lab a-b delay=1ms", "nobodys-lab"},
		{"link set nobodys-lab a-b delay=1", "delay"},
		{"link set nobodys-lab a-b loss=101%", "loss"},
		{"link set nobodys-lab a-b dealy=1ms", `"delay"`},
		{"link set nobodys-lab a-b delay=1ms delay=2ms", "delay"},
		{"link set nobodys-lab a-b", "set --help"},
		{"link sett", "set"},
		{"down", "down --help"},
		{"exec nobodys-lab a -- true", "nobodys-lab"},
		{"exec nobodys-lab a", "exec --help"},
		{"check nowhere.yaml", "nowhere.yaml"},
		{"check", "check --help"},
		{"show pare", `"pair"`},
		{"show pair --json --svg", "--svg"},
		{"show pair -o FILE/in", "--output"},
		{"schema more", "schema --help"},
		{"topologies more", "topologies --help"},
		{"doctor more", "doctor --help"},
		{"test everything", "everything"},
		{"test --mode air", "--mode"}, {"test --kernel host", "--mode vm"},
		{"test --parallel 0", "--parallel"},
		{"test --junit FILE/in", "--junit"},
		{"test --junit missing/x.xml", "--junit"},
		{"test --junit DIR", "--junit"},
		{"test everythin", "hygiene"},
		{"bench labs --nodes 1", "--nodes"},
		{"bench labs --runs 0", "--runs"},
		{"bench tunnel --runs 0", "--runs"},
		{"bench tunnel --duration 0", "--duration"},
		{"bench lab", "labs"},
		{"rum", "run"},
		{"--nonsense", "--nonsense"},
	} {
		t.Run(c.args, func(t *testing.T) {
			clean(t)
			profile := write(t, "nodes: [{name: a, kind: host, profile: abacus}]\n")
			temp, dir := t.TempDir(), t.TempDir()
			args := strings.Fields(c.args)
			for i := range args {
				args[i] = strings.NewReplacer("FILE", file, "PLAIN", plain, "DIR", dir, "PROFILE", profile).Replace(args[i])
			}
			cmd := command(t, args...)
			cmd.Dir = dir
			cmd.Env = append(cmd.Env, "TMPDIR="+temp, "XDG_RUNTIME_DIR="+temp)
			r := finish(t, cmd)
			if r.code != exitUsage {
				t.Errorf("exit status %d, want %d: %s", r.code, exitUsage, r.err)
			}
			if want := strings.NewReplacer("DIR", dir).Replace(c.names); !strings.Contains(r.err, want) {
				t.Errorf("does not name %s: %s", want, r.err)
			}
			if strings.Contains(r.err, "strconv") {
				t.Errorf("names what it is made of: %s", r.err)
			}
			if r.out != "" {
				t.Errorf("on standard output: %s", r.out)
			}
			for _, d := range []string{temp, dir} {
				if made, err := os.ReadDir(d); err != nil || len(made) > 0 {
					t.Errorf("made %v, %v", made, err)
				}
			}
		})
	}
}

// Every broken topology is refused with the position of each mistake.
func TestCheckBroken(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../topology/testdata/broken/*.yaml")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d broken topologies, %v", len(files), err)
	}
	type mistake struct {
		File, Kind, Message string
		Line, Column        int
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			r := pqlab(t, "check", "--json", file)
			if r.code != exitUsage || r.err != "" {
				t.Errorf("exit status %d, on standard error %q", r.code, r.err)
			}
			found := parse[[]mistake](t, r.out)
			if len(found) == 0 {
				t.Error("no mistake found")
			}
			for _, m := range found {
				if m.File != file || m.Line < 1 || m.Column < 1 || m.Kind == "" || m.Message == "" {
					t.Errorf("%+v", m)
				}
			}
			r = pqlab(t, "check", file)
			if r.code != exitUsage || r.out != "" || !strings.Contains(r.err, file+":") {
				t.Errorf("for people: exit status %d, %q, %q", r.code, r.out, r.err)
			}
		})
	}
	t.Run("a file that is missing", func(t *testing.T) {
		t.Parallel()
		r := pqlab(t, "check", "--json", "nowhere.yaml", files[0])
		found := parse[[]mistake](t, r.out)
		if r.code != exitUsage || r.err != "" || len(found) < 2 || found[0].File != "nowhere.yaml" || found[0].Kind != "file" || found[1].File != files[0] {
			t.Errorf("exit status %d, %q, %+v", r.code, r.err, found)
		}
	})
	t.Run("together with good ones", func(t *testing.T) {
		t.Parallel()
		r := pqlab(t, append([]string{"check", "--json", "pair"}, files...)...)
		seen := map[string]bool{}
		for _, m := range parse[[]mistake](t, r.out) {
			seen[m.File] = true
		}
		if r.code != exitUsage || len(seen) != len(files) {
			t.Errorf("exit status %d, mistakes in %d of %d files", r.code, len(seen), len(files))
		}
	})
}
