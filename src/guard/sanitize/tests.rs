//! The engine as a whole, by example.

use super::*;

/// The text after a check for a sink, and the words for what was found.
fn checked(text: &str, sink: Sink) -> (String, Vec<&'static str>) {
    let cleaned = Sanitizer::default().check(text, sink).unwrap_or_default();
    (cleaned.apply(text), cleaned.found.names().collect())
}

fn html(text: &str) -> String {
    checked(text, Sink::Html).0
}

/// A sanitizer that damages what people write is switched off, and then guards nobody.
#[test]
fn what_people_write_stays() {
    for text in [
        "",
        "a < b && c > d, i<3, x<y, 1<2>0, <3",
        "let v: Vec<String> = HashMap::<K, Vec<Object>>::new();",
        "#include <stdio.h>\nfor (int i=0;i<n;i++) { once = 1; }",
        "<div class=\"box\"><b>hello</b> <a href='https://example.com/?a=1&b=2'>link</a><br/></div>",
        "<link to your page> and <form of payment>, <Your Name>, </div>",
        "<?php echo $a; ?>",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "JavaScript: how do I use it? javascript:",
        "the javascript:void(0) trick",
        "[a](https://example.com) [b]: /c ![d](data:image/png;base64,AAAA)",
        "<img src=\"data:image/png;base64,AAAA\" alt='javascript basics'>",
        "<p style=\"color: red; scroll-behavior: smooth\">",
        "İstanbul'da ışık < ＜题＞ 《书》，“引号”",
        "< script >",
        "a <b",
    ] {
        for sink in [Sink::Html, Sink::Markdown, Sink::Model] {
            assert_eq!(Sanitizer::default().check(text, sink), None, "{text:?} {sink:?}");
        }
    }
}

/// Each of these runs, loads or swallows something in a page that puts it in as it is.
#[test]
fn active_openers_lose_their_bracket() {
    for (text, cleaned, kind) in [
        ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>", "markup"),
        ("a<ScRiPt\n/x", "a&lt;ScRiPt\n/x", "markup"),
        ("<svg><b>", "&lt;svg><b>", "markup"),
        ("<!-- x --><![CDATA[<b>", "&lt;!-- x -->&lt;![CDATA[<b>", "markup"),
        ("<?xml-stylesheet?>", "&lt;?xml-stylesheet?>", "markup"),
        ("<form action=//evil>", "&lt;form action=//evil>", "markup"),
        ("</textarea>", "&lt;/textarea>", "markup"),
        ("<b srcdoc=x>", "&lt;b srcdoc=x>", "markup"),
        ("<p style='x:expression(1)'>", "&lt;p style='x:expression(1)'>", "markup"),
        ("<img src='//evil/?", "&lt;img src='//evil/?", "markup"),
        ("<img src=x onerror=alert(1)", "&lt;img src=x onerror=alert(1)", "handler"),
        ("<b/onmouseover\n=x>", "&lt;b/onmouseover\n=x>", "handler"),
        ("<x a='>'onclick=x>", "&lt;x a='>'onclick&#61;x>", "handler"),
        ("<javascript:alert(1)>", "&lt;javascript:alert(1)>", "url"),
        ("<b title=\"<script>\">", "<b title=\"&lt;script>\">", "markup"),
        ("<<script>", "<&lt;script>", "markup"),
    ] {
        assert_eq!(checked(text, Sink::Html), (cleaned.to_owned(), vec![kind]), "{text:?}");
    }
}

/// A `=` that is made harmless ends no value any more: what was one then is read as attributes of its own.
#[test]
fn making_one_handler_harmless_makes_no_other() {
    for text in [
        "<img src=x \"onclick=`/onerror=alert(1)>",
        "<img src=x y'onclick =`/onerror=alert(1)>",
        "<a \"onerror=`/srcdoc=",
        "<img src=x alt=y\"onclick=`/onerror=alert(1)>",
        "<img src=x alt='\"onclick=`/onerror=alert(1)'>",
    ] {
        let left = html(text);
        assert_eq!(browser::active(&format!("{left}>"), "div"), None, "{left}");
        assert_eq!(html(&left), left, "{text}");
    }
}

/// A link that runs script when it is followed is a link no more; the rest of its tag stays.
#[test]
fn script_urls_are_blanked() {
    for (text, cleaned) in [
        ("<a href=\"javascript:alert(1)\" id=x>y</a>", "<a href=\"#alert(1)\" id=x>y</a>"),
        ("<a href=' JAVA&Tab;script&colon;x'>", "<a href=' #x'>"),
        ("<a href=javascript:javascript:x>", "<a href=##x>"),
        ("<a xlink:href=data:text/html,x>", "<a xlink:href=#text/html,x>"),
        ("[x](javascript:alert(1))", "[x](#alert(1))"),
        ("![x]( <jAvascript&#58;alert(1)>)", "![x]( &lt;#alert(1)>)"),
        ("[x]: javascript\\:alert(1)", "[x]: #alert(1)"),
        ("javascript:alert(1)", "#alert(1)"),
    ] {
        assert_eq!(checked(text, Sink::Html), (cleaned.to_owned(), vec!["url"]), "{text:?}");
    }
}

/// An app that puts a message into `value="…"` unescaped is attacked without any tag.
#[test]
fn a_handler_behind_a_quote_gets_no_value() {
    assert_eq!(
        checked("\" onfocus=x autofocus \"", Sink::Html),
        ("\" onfocus&#61;x autofocus \"".into(), vec!["handler"])
    );
    assert_eq!(html("'/onClick\n= 'x"), "'/onClick\n&#61; 'x");
    assert_eq!(html("<b title=\" onclick=x \">"), "<b title=\" onclick&#61;x \">");
    for text in ["\"one = 1", "onclick=x", "say \"on\" = 1", "\"online\": =", "a='b' conclude=c"] {
        assert_eq!(html(text), text);
    }
}

/// What is hidden in a word hides the word from the judge, unless it is taken out first.
#[test]
fn an_opener_is_seen_through_what_hides_it() {
    assert_eq!(html("<scr\u{200b}ipt>"), "&lt;script>");
    assert_eq!(html("<\0script>"), "&lt;script>");
    assert_eq!(html("<img o\u{202e}nerror\u{feff}=x>"), "&lt;img onerror=x>");
    assert_eq!(html("<a href=java\u{1}script:x>"), "<a href=#x>");
    assert_eq!(checked("<s\u{e0061}vg>", Sink::Html).1, ["markup", "tag"]);
    assert_eq!(html("＜ｓｃｒｉｐｔ＞x＜／ｓｃｒｉｐｔ＞"), "&lt;ｓｃｒｉｐｔ＞x&lt;／ｓｃｒｉｐｔ＞");
    assert_eq!(html("<ſcript> ﹤ıframe"), "&lt;ſcript> &lt;ıframe");
    // A full-width quote is none to a browser.
    assert_eq!(html("<img alt=＂ onerror=x＂>"), "&lt;img alt=＂ onerror=x＂>");
}

/// Code in a chat is shown, not run, if the page renders Markdown and the operator said so.
#[test]
fn markdown_code_stays_only_where_markdown_sees_code() {
    for code in [
        "`<script>`",
        "`` <svg> ` ``",
        "```html\n<script>\n```\n",
        "~~~\n<script>",
        "text\n\n    <script>\n",
        "- ```\n  <script>\n  ```\n",
        "> ```\n> <script>\n",
    ] {
        assert_eq!(Sanitizer::default().check(code, Sink::Markdown), None, "{code:?}");
        assert!(Sanitizer::default().check(code, Sink::Html).is_some(), "{code:?}");
    }
    for live in [
        "`<script>",
        "`a\n\n<script>`",
        "- ```\n  code\n  ```\n<script>\n",
        "<div>\n`<script>`\n</div>",
        "| `a | b |\n|---|---|\n| `a | <script> |\n| b` | c |",
        "text\n    <script>",
        "a ```<script>\n:```",
        "\\`<script>\\`",
        "<img onerror=\"`\"> `<script>` `",
    ] {
        let (cleaned, _) = checked(live, Sink::Markdown);
        assert!(cleaned.contains("&lt;script"), "{live:?} {cleaned:?}");
    }
}

/// Speech must hear the text and nothing of the markup; a tag may not be made by taking one out.
#[test]
fn plain_text_is_what_is_left_without_tags() {
    for (text, left) in [
        ("<p>Hello <b class=x>you</b>, 1 < 2</p>", "Hello you, 1 < 2"),
        ("a<script>alert(1)</script>b<style>c</style >d", "abd"),
        ("a<script>b", "a"),
        ("a<!-- b -->c<!d>e<?f>g", "aceg"),
        ("<<b>script>x</<i>script>", "script>xscript>"),
        ("<scr<b>ipt>x", ""),
        ("<b<b<b<b<b<b<b<i>r>r>r>r>r>r>r>", "bbbbr>r>r>r>"),
        ("if a <b onclick=x then", "if a b onclick=x then"),
        ("<!-- open", "!-- open"),
        ("&lt;b&gt;", "&lt;b&gt;"),
    ] {
        assert_eq!(checked(text, Sink::Plain).0, left, "{text:?}");
    }
}

/// Whoever asks for a pause in a spoken text gets one, and what is said about code is said; what acts is still no text.
#[test]
fn plain_text_keeps_what_is_none_of_html() {
    for text in [
        "Wait <break time=\"1s\"/> now <prosody rate='slow'>slowly</prosody>",
        "<speak>Hi <say-as interpret-as=\"date\">1.1.</say-as><amazon:effect name=\"whispered\">psst</amazon:effect></speak>",
        "<speak version='1.1'><p><s>One</s><s>Two <sub alias=\"three\">3</sub></s></p><mark name='m'/><audio src='https://a.example/x.mp3'/></speak>",
        "A List<String>, a Map<String, List<Integer>>, a List<Object> and an Option<A>, not a Vec<T>",
        "#include <stdio.h> and <your name>, 1 < 2, a <- b, x<y",
        "[sighs] <laughs> well </laughs>",
        "if a <b then, i <s and so on",
    ] {
        assert_eq!(Sanitizer::default().check(text, Sink::Plain), None, "{text:?}");
    }
    for (text, left) in [
        ("<?xml version='1.0'?><speak><p>a</p><b>b</b></speak>", "<speak><p>a</p>b</speak>"),
        ("<p>a <break/></p>", "a <break/>"),
        ("<break onclick=x>a<x href=javascript:y>b<h:script>c", "abc"),
        ("<speak><audio src=x onerror=y>a<mark style='x:expression(1)'>b</speak>", "<speak>ab</speak>"),
        ("<break title=\"<script>x</script>\"/>", "<break title=\"\"/>"),
        ("<BR>a <Br>, List<Script>x", "a , List"),
        ("text<BR>more<b>x</b>", "textmorex"),
        ("<speaker><p>a", "<speaker>a"),
    ] {
        assert_eq!(checked(text, Sink::Plain).0, left, "{text:?}");
    }
}

/// A field that holds HTML on purpose keeps its formatting.
#[test]
fn rich_text_keeps_harmless_formatting() {
    let (text, found) = checked("<p>a <b onclick=x>b</b><script>c</script></p>", Sink::Rich);
    assert_eq!((text.as_str(), found), ("<p>a <b>b</b></p>", vec!["markup"]));
    assert_eq!(Sanitizer::default().check("<p>a <b>b</b></p>", Sink::Rich), None);
    assert_eq!(Sanitizer::default().check("a & b", Sink::Rich), None);
}

/// A model is told, not fed another prompt than was written.
#[test]
fn a_model_gets_its_text_as_written() {
    let cleaned = Sanitizer::default().check("<script>\u{200b}", Sink::Model).unwrap();
    assert!(cleaned.edits.is_empty() && cleaned.found.is_active());
    assert_eq!(cleaned.found.names().collect::<Vec<_>>(), ["markup", "zero_width"]);
}

/// An escaped field must read the same in HTML and break out of no attribute.
#[test]
fn escaping_covers_every_character_that_html_reads() {
    let text = "a\u{200b} & <b title=\"x\">'";
    let cleaned = Sanitizer::default().escape(text).unwrap();
    assert_eq!(cleaned.apply(text), "a &amp; &lt;b title=&quot;x&quot;&gt;&#39;");
    assert_eq!(cleaned.found.names().collect::<Vec<_>>(), ["zero_width"]);
    assert_eq!(Sanitizer::default().escape("plain"), None);
}
