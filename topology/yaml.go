package topology

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Limits of a YAML file. The parser's time and memory grow with the square of depth and of the keys of one mapping, so
// both are counted before it runs.
const (
	maxInput  = 2 << 20
	maxDepth  = 16
	maxIndent = 200
	maxKeys   = 256
	maxCommas = 1 << 18 // in all flow collections; each costs the parser half a kilobyte
)

// Load reads a topology from a YAML file. What is wrong with the topology is Errors; the file's own errors are not.
func Load(path string) (*Topology, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxInput+1))
	if err != nil {
		return nil, err
	}
	t, at, err := parse(path, data, filepath.Dir(path))
	if err == nil {
		t.Dir, t.at = filepath.Dir(path), linksAt(len(t.Links), at)
	}
	return t, err
}

// Parse reads a topology from YAML; name stands for the file in its errors, which are Errors and hold every mistake
// found. Files that it names are relative to the working directory. A topology that it returns can be planned.
func Parse(name string, data []byte) (*Topology, error) {
	t, _, err := parse(name, data, "")
	return t, err
}

func parse(name string, data []byte, dir string) (*Topology, map[string]Position, error) {
	d := &decoder{at: map[string]Position{}, file: name, files: files{dir: dir, may: true, left: maxTraces}}
	t := d.topology(data)
	if !slices.ContainsFunc(d.found, essential) {
		_, err := t.Plan()
		d.found = append(d.found, d.unsaid(asErrors(err))...)
	}
	if len(d.found) > 0 {
		return nil, nil, d.found.locate(d.at, Position{name, 1, 1})
	}
	return &t, d.at, nil
}

// essential says whether a mistake makes the rest of the topology look wrong: node names that could not be read would
// be unknown everywhere, links that could not be read would be missing. Of all else Plan knows what depends on it.
func essential(e Error) bool {
	if e.Kind == BadKey || e.Kind == Duplicate {
		return false
	}
	item, rest, _ := strings.Cut(e.Element, ".")
	return slices.Contains([]string{"", "file", "nodes", "links"}, item) || strings.HasPrefix(item, "nodes[") && (rest == "" || rest == "name")
}

// unsaid leaves out what Plan says of elements that could not be read, of what is in them, and of lists as a whole of which
// an entry could not be read.
func (d *decoder) unsaid(errs Errors) Errors {
	said, incomplete := map[string]bool{}, map[string]bool{}
	for _, e := range d.found {
		said[e.Element] = true
		if i := strings.LastIndexByte(e.Element, '['); i >= 0 {
			incomplete[e.Element[:i]] = true
		}
	}
	return slices.DeleteFunc(errs, func(e Error) bool {
		if incomplete[e.Element] {
			return true
		}
		for element := e.Element; element != ""; element = parent(element) {
			if said[element] {
				return true
			}
		}
		return false
	})
}

// decoder reads forms from a YAML tree and remembers where each element is.
type decoder struct {
	problems
	at    map[string]Position
	file  string
	files files
}

func (d *decoder) topology(data []byte) (t Topology) {
	if body, ok := d.parse(data); ok {
		t, _ = topologyForm().read(d, body, "")
	}
	return t
}

// parse returns the root of the only document.
func (d *decoder) parse(data []byte) (ast.Node, bool) {
	fail := func(t *token.Token, format string, args ...any) (ast.Node, bool) {
		d.at["file"] = Position{d.file, 1, 1}
		if t != nil {
			d.at["file"] = Position{d.file, max(1, t.Position.Line), max(1, t.Position.Column)}
		}
		d.add(BadSyntax, "file", format, args...)
		return nil, false
	}
	if len(data) > maxInput {
		return fail(nil, "the file is larger than %d bytes", maxInput)
	}
	tokens := lexer.Tokenize(strings.TrimPrefix(string(data), "\ufeff")) // a byte order mark, YAML 1.2.2 section 5.2
	if t, why := refuse(tokens); t != nil {
		return fail(t, "%s", why)
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var syntax *yaml.SyntaxError
		if errors.As(err, &syntax) {
			return fail(syntax.Token, "%s", syntax.Message)
		}
		return fail(nil, "%v", err)
	}
	if len(file.Docs) == 0 || file.Docs[0].Body == nil {
		return fail(nil, "the file is empty; a topology has at least nodes")
	}
	if len(file.Docs) > 1 {
		t := file.Docs[1].Start
		return fail(t, "a second document begins; a file holds one topology")
	}
	return file.Docs[0].Body, true
}

// refuse returns the first token that a topology has no use for or that makes it too deep or wide to parse, and why.
func refuse(tokens token.Tokens) (*token.Token, string) {
	var flow []int         // keys in each open flow collection
	keys := map[int]int{}  // keys of the open block mappings, by column
	line, entries := -1, 0 // of the current line: number, "- " in it
	commas := 0
	for _, t := range tokens {
		column := t.Position.Column
		if t.Position.Line != line {
			line, entries = t.Position.Line, 0
			if len(flow) == 0 && column > maxIndent {
				return t, fmt.Sprintf("is indented by more than %d columns", maxIndent)
			}
		}
		switch t.Type {
		case token.AnchorType, token.AliasType, token.MergeKeyType:
			return t, "anchors, aliases and merge keys are not part of a topology; write the value out"
		case token.TagType:
			return t, "tags are not part of a topology"
		case token.DirectiveType:
			return t, "directives are not part of a topology"
		case token.MappingKeyType:
			return t, "complex keys are not part of a topology"
		case token.SequenceStartType, token.MappingStartType:
			if flow = append(flow, 0); len(flow) > maxDepth {
				return t, fmt.Sprintf("is nested deeper than %d", maxDepth)
			}
		case token.CollectEntryType:
			if commas++; commas > maxCommas {
				return t, fmt.Sprintf("the file has more than %d entries in [ ] and { }", maxCommas)
			}
		case token.SequenceEndType, token.MappingEndType:
			flow = flow[:max(0, len(flow)-1)]
		case token.SequenceEntryType:
			if entries++; entries > maxDepth {
				return t, fmt.Sprintf("is nested deeper than %d", maxDepth)
			}
			closeDeeper(keys, column)
		case token.MappingValueType:
			if n := len(flow) - 1; n >= 0 {
				if flow[n]++; flow[n] > maxKeys {
					return t, fmt.Sprintf("a mapping has more than %d keys", maxKeys)
				}
				continue
			}
			if t.Prev != nil {
				column = t.Prev.Position.Column
			}
			closeDeeper(keys, column)
			if keys[column]++; keys[column] > maxKeys {
				return t, fmt.Sprintf("a mapping has more than %d keys", maxKeys)
			}
			if len(keys) > maxDepth {
				return t, fmt.Sprintf("is nested deeper than %d", maxDepth)
			}
		}
	}
	return nil, ""
}

// closeDeeper forgets the block mappings right of column: something left of them began.
func closeDeeper(keys map[int]int, column int) {
	for c := range keys {
		if c > column {
			delete(keys, c)
		}
	}
}

// place remembers where an element is.
func (d *decoder) place(element string, t *token.Token) {
	if t != nil {
		d.at[element] = Position{d.file, t.Position.Line, t.Position.Column}
	}
}

// start is the token that a reader sees first of n.
func start(n ast.Node) *token.Token {
	switch n := n.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return n.Values[0].Key.GetToken()
		}
	case *ast.MappingValueNode:
		return n.Key.GetToken()
	}
	return n.GetToken()
}

func isScalar(n ast.Node) bool {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode, *ast.SequenceNode:
		return false
	}
	return true
}

// scalar returns the text of a value.
func (d *decoder) scalar(n ast.Node, element string) (string, bool) {
	d.place(element, start(n))
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	case *ast.NullNode:
		d.add(BadValue, element, "%s: has no value", lastKey(element))
	case *ast.MappingNode, *ast.MappingValueNode:
		d.add(BadValue, element, "%s: is a mapping where one value belongs (a value with a colon, as an IPv6 address in [ ], needs quotes)", lastKey(element))
	default:
		d.add(BadValue, element, "%s: is a list or something else where one value belongs", lastKey(element))
	}
	return "", false
}

// object visits the values of a mapping whose keys are among known, then tells which were given.
func (d *decoder) object(n ast.Node, element, what string, known []string, visit func(i int, value ast.Node, element string), done func(given []bool)) bool {
	d.place(element, start(n))
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	default:
		d.add(BadValue, element, "%s: is not a mapping of keys to values", what)
		return false
	}
	given := make([]bool, len(known))
	for _, v := range values {
		name, ok := keyText(v.Key)
		i := slices.Index(known, name)
		child := name
		if element != "" {
			child = element + "." + name
		}
		switch {
		case !ok || i < 0:
			d.add(BadKey, d.placeKey(element, v.Key), "%s: there is no key %s%s", what, quote(name), DidYouMean(name, known))
		case given[i]:
			d.add(Duplicate, d.placeKey(element, v.Key), "%s: key %s is given twice", what, name)
		default:
			given[i] = true
			visit(i, v.Value, child)
		}
	}
	done(given)
	return true
}

// placeKey names and places a key that is no element of the model.
func (d *decoder) placeKey(element string, k ast.MapKeyNode) string {
	t := k.GetToken()
	element = fmt.Sprintf("%s.?%d:%d", element, t.Position.Line, t.Position.Column)
	d.place(element, t)
	return element
}

func keyText(k ast.MapKeyNode) (string, bool) {
	if s, ok := k.(*ast.StringNode); ok {
		return s.Value, true
	}
	return k.GetToken().Value, false
}

// list visits the values of a sequence.
func (d *decoder) list(n ast.Node, element, what string, most int, visit func(i int, n ast.Node, element string)) bool {
	d.place(element, start(n))
	s, ok := n.(*ast.SequenceNode)
	switch {
	case !ok:
		d.add(BadValue, element, "%s: is not a list", what)
		return false
	case len(s.Values) == 0:
		d.add(BadValue, element, "%s: is an empty list; leave it out", what)
		return false
	case len(s.Values) > most:
		d.add(BadValue, element, "%s: has %d entries, more than %d", what, len(s.Values), most)
		return false
	}
	for i, v := range s.Values {
		visit(i, v, fmt.Sprintf("%s[%d]", element, i))
	}
	return true
}
