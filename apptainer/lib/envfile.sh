# shellcheck shell=bash
# Reads env files without ever evaluating them, as Docker Compose reads them; refuses what the two would read apart.
#
#   read_env_file FILE ARRAY            a file that people write: NAME=value, one pair of quotes around a whole value,
#                                       # comments. Refused: $ outside single quotes (Compose would expand it),
#                                       backslashes in quotes, values of several lines, names without a value.
#   read_env_file FILE ARRAY literal    a file that Berth wrote: NAME=value, literal to the end of the line
#
# ARRAY is an associative array; the last line wins where a name stands twice.
# Needs messages.sh. A refusal ends the job with code 64, and shows no value.
# shellcheck disable=SC2004 # ARRAY is associative: its names are no arithmetic

# What Unicode calls white space beyond blank and tab, in UTF-8: readers do not agree on trimming it.
_env_space=$'(\xc2[\x85\xa0]|\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f|\xe3\x80\x80)'
_env_odd_edge="^$_env_space|$_env_space\$|$_env_space#"
_env_after_quote='[[:blank:]]*$|[[:blank:]]+#.*$'
_env_single="^'([^'\\\\]*)'($_env_after_quote)"
_env_double="^\"([^\"\\\\\$]*)\"($_env_after_quote)"
_env_form='not a line of the form NAME=value'

read_env_file() { # FILE ARRAY [literal]
    local file=$1 mode=${3:-} line value LC_ALL=C
    local -i number=0
    local -n _env_into=$2
    [[ -f $file && -r $file ]] || fail 64 "$file: no such file, or it may not be read"
    _env_must_be_text
    while IFS= read -r line || [[ -n $line ]]; do
        number+=1
        if [[ $mode == literal ]]; then
            [[ -z $line || $line == '#'* ]] && continue
            [[ $line =~ ^([A-Za-z_][A-Za-z0-9_]*)=(.*)$ ]] || _env_refuse "$_env_form"
            _env_into[${BASH_REMATCH[1]}]=${BASH_REMATCH[2]}
        else
            ((number > 1)) || line=${line#$'\xef\xbb\xbf'}
            _env_read_line "${line%$'\r'}"
        fi
    done <"$file"
}

# The functions below see the variables of read_env_file.

_env_refuse() { fail 64 "$file:$number: $1"; }

_env_must_be_text() {
    local -i valid
    (($(iconv -f UTF-8 -t UTF-8 <"$file" 2>/dev/null | tr -d '\000' | wc -c) != $(wc -c <"$file"))) || return 0
    # A zero byte: bash would drop it without a word. Its line is one more than the line breaks before it.
    if (($(tr -dc '\000' <"$file" | head -c 1 | wc -c))); then
        number=$(tr -dc '\000\n' <"$file" | tr '\000\n' '\n.' | head -n 1 | tr -dc '.' | wc -c)+1
        _env_refuse 'a zero byte'
    fi
    valid=$(iconv -f UTF-8 -t UTF-8 <"$file" 2>/dev/null | wc -c)
    number=$(head -c "$valid" <"$file" | tr -dc '\n' | wc -c)+1
    _env_refuse 'not UTF-8 text (save the file as UTF-8)'
}

_env_read_line() { # LINE
    local name
    [[ $1 == *[$'\x01'-$'\x08'$'\x0b'-$'\x1f'$'\x7f']* ]] && _env_refuse 'a control character'
    [[ $1 =~ ^[[:blank:]]*(#.*)?$ ]] && return
    [[ $1 =~ ^[[:blank:]]*(export[[:blank:]]+)?([A-Za-z_][A-Za-z0-9_]*)=([[:blank:]]*)(.*)$ ]] || _env_refuse "$_env_form"
    name=${BASH_REMATCH[2]} value=${BASH_REMATCH[4]}
    [[ -n ${BASH_REMATCH[3]} && $value == '#'* ]] &&
        _env_refuse "$name: a comment where the value should be (leave nothing behind the =)"
    case $value in
    \'*)
        [[ $value =~ $_env_single ]] || _env_refuse "$name: write '…' around the whole value, without ' or \\ in it"
        value=${BASH_REMATCH[1]}
        ;;
    \"*)
        [[ $value =~ $_env_double ]] ||
            _env_refuse "$name: write \"…\" around the whole value, without \", \\ or \$ in it, or use single quotes"
        value=${BASH_REMATCH[1]}
        ;;
    *) _env_unquoted "$name" ;;
    esac
    _env_into[$name]=$value
}

_env_unquoted() { # NAME: makes of `value` what Compose makes of it
    value=${value%%' #'*}
    value=${value%"${value##*[![:blank:]]}"}
    [[ $value == *'$'* ]] && _env_refuse "$1: Compose would expand the \$ (put the value in single quotes)"
    [[ $value == *$'\t#'* ]] && _env_refuse "$1: a tab before # (write a blank there, or no #)"
    # Few values are not ASCII, and the pattern is slow.
    [[ $value == *[$'\x80'-$'\xff']* && $value =~ $_env_odd_edge ]] &&
        _env_refuse "$1: white space that is no blank, at the value's edge or before #"
    return 0
}
