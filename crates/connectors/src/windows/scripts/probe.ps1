# volvelle: probe
# Which of several passwords opens an account of this host: stops at the first that does, and after so many failures.
param($user, $budget)
$type = Add-Type -PassThru -Name Logon -Namespace Volvelle -MemberDefinition @'
[DllImport("advapi32.dll", SetLastError = true, CharSet = CharSet.Unicode)]
public static extern bool LogonUser(string user, string domain, string password, int type, int provider, out IntPtr token);
[DllImport("kernel32.dll")]
public static extern bool CloseHandle(IntPtr handle);
'@
$failed = 0
$number = 0
foreach ($password in $args) {
  if ($failed -ge [int]$budget) { break }
  $token = [IntPtr]::Zero
  if ($type::LogonUser($user, $env:COMPUTERNAME, $password, 3, 0, [ref]$token)) {
    [void]$type::CloseHandle($token)
    "code$number=0"
    break
  }
  "code$number=" + [Runtime.InteropServices.Marshal]::GetLastWin32Error()
  $failed++
  $number++
}
